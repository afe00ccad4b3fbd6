"""torch_test.py LIBRARY: the operations of libequinorm, called through its C interface, against PyTorch's: values and gradients.

PyTorch computes in double, with autograd, from the very numbers that ours is given. What is proven is meaning: options, layouts,
which variance, what a gradient is of. So a difference may be a few roundings of the type in which ours answers (how many exactly
is for the tests of each operation). Where there is no PyTorch this says so and returns 77.
"""
import ctypes
import itertools
import math
import sys

try:
    import torch
    import torch.nn.functional as F
except ImportError as error:
    print(f"skipped: {error}")
    sys.exit(77)

lib = ctypes.CDLL(sys.argv[1])
# ---- The C interface ------------------------------------------------------------------------------------------------

DTYPES = {torch.float32: 0, torch.float64: 1, torch.bfloat16: 2, torch.float16: 3}
ROUNDING = {torch.float64: 2.0**-53, torch.float32: 2.0**-24, torch.bfloat16: 2.0**-8, torch.float16: 2.0**-11}
CHANNELS_LAST, CHANNELS_FIRST = 0, 1


class Tensor(ctypes.Structure):
    _fields_ = [("data", ctypes.c_void_p), ("dtype", ctypes.c_int32), ("layout", ctypes.c_int32), ("rank", ctypes.c_size_t),
                ("extents", ctypes.c_size_t * 5), ("row_stride", ctypes.c_size_t)]


class Sized(ctypes.Structure):
    """A struct that begins with its size and has an _init function."""

    def __init__(self, **fields):
        super().__init__()
        init = getattr(lib, f"equinorm_{self.name}_init")
        init.restype = None
        init(ctypes.byref(self), ctypes.c_size_t(ctypes.sizeof(self)))
        for field, value in fields.items():
            setattr(self, field, value)


class Execution(Sized):
    name = "execution"
    _fields_ = [("size", ctypes.c_size_t), ("threads", ctypes.c_int32), ("reserved", ctypes.c_int32),
                ("workspace", ctypes.c_void_p), ("workspace_bytes", ctypes.c_size_t), ("run", ctypes.c_void_p),
                ("run_data", ctypes.c_void_p), ("message", ctypes.c_char_p), ("message_bytes", ctypes.c_size_t)]


class BatchNormOptions(Sized):
    name = "batch_norm_options"
    _fields_ = [("size", ctypes.c_size_t), ("epsilon", ctypes.c_double), ("activation", ctypes.c_int32),
                ("non_finite", ctypes.c_int32), ("single_value", ctypes.c_int32), ("reserved", ctypes.c_int32),
                ("lengths", ctypes.c_void_p)]


class GroupNormOptions(Sized):
    name = "group_norm_options"
    _fields_ = [("size", ctypes.c_size_t), ("groups", ctypes.c_size_t), ("epsilon", ctypes.c_double),
                ("activation", ctypes.c_int32), ("reserved", ctypes.c_int32), ("lengths", ctypes.c_void_p)]


class InstanceNormOptions(Sized):
    name = "instance_norm_options"
    _fields_ = [("size", ctypes.c_size_t), ("epsilon", ctypes.c_double), ("activation", ctypes.c_int32),
                ("reserved", ctypes.c_int32), ("lengths", ctypes.c_void_p)]


class LayerNormOptions(Sized):
    name = "layer_norm_options"
    _fields_ = [("size", ctypes.c_size_t), ("epsilon", ctypes.c_double), ("normalized_axes", ctypes.c_size_t),
                ("activation", ctypes.c_int32), ("reserved", ctypes.c_int32), ("lengths", ctypes.c_void_p)]


class RmsNormOptions(LayerNormOptions):
    name = "rms_norm_options"


class RunningStatistics(Sized):
    name = "running_statistics"
    _fields_ = [("size", ctypes.c_size_t), ("mean", ctypes.c_void_p), ("variance", ctypes.c_void_p),
                ("batches", ctypes.c_uint64), ("skipped", ctypes.c_uint64), ("running_weight", ctypes.c_double),
                ("cumulative", ctypes.c_int32), ("variance_kind", ctypes.c_int32)]


class BatchMoments(Sized):
    name = "batch_moments"
    _fields_ = [("size", ctypes.c_size_t), ("channels", ctypes.c_size_t), ("count", ctypes.c_double),
                ("mean", ctypes.c_void_p), ("m2", ctypes.c_void_p)]


class Tangents(ctypes.Structure):
    _fields_ = [("x", ctypes.c_void_p), ("residual", ctypes.c_void_p), ("gamma", ctypes.c_void_p), ("beta", ctypes.c_void_p)]


def pointer(array):
    """The data of a torch tensor that is a plain array to C, or NULL."""
    return None if array is None else ctypes.c_void_p(array.data_ptr())


def call(operation, *arguments):
    """Calls equinorm_<operation> with torch tensors as plain arrays, structs by reference, None as NULL, numbers and arrays of
    ctypes as they are."""
    message = ctypes.create_string_buffer(300)
    execution = Execution(threads=2, message=ctypes.addressof(message), message_bytes=len(message))
    passed = [ctypes.byref(argument) if isinstance(argument, ctypes.Structure)
              else pointer(argument) if isinstance(argument, torch.Tensor) else argument for argument in (*arguments, execution)]
    status = getattr(lib, f"equinorm_{operation}")(*passed)
    assert status == 0, message.value.decode()


# ---- Data -----------------------------------------------------------------------------------------------------------

numbers = torch.Generator().manual_seed(20221122)


def normal(shape, dtype, mean=0.0):
    return (torch.randn(shape, generator=numbers, dtype=torch.float64) + mean).to(dtype)


def parameter_type(dtype):
    return torch.float64 if dtype == torch.float64 else torch.float32


def exact(array):
    """The same numbers in double, as a leaf that collects its gradient."""
    return None if array is None else array.detach().double().requires_grad_()


class View:
    """Tensors of a call, which are channels-first here, as in PyTorch; ours lie in memory as `layout` says, and the rows of a
    matrix `row_stride` apart."""

    def __init__(self, layout, row_stride=0):
        self.layout, self.row_stride = layout, row_stride

    def give(self, array):
        if array is None:
            return None
        stored = array.detach()
        if self.layout == CHANNELS_LAST:
            stored = stored.movedim(1, -1)
        shape = tuple(stored.shape)
        if self.row_stride:
            padded = torch.full((shape[0], self.row_stride), float("nan"), dtype=array.dtype)
            padded[:, : shape[1]] = stored
            stored = padded
        stored = stored.contiguous()
        view = Tensor(stored.data_ptr(), DTYPES[array.dtype], self.layout, len(shape), shape, self.row_stride)
        view.kept = stored[:, : shape[1]] if self.row_stride else stored
        return view

    def room(self, like):
        return self.give(torch.full_like(like, float("nan")))

    def take(self, view):
        return view.kept.movedim(-1, 1) if self.layout == CHANNELS_LAST else view.kept


checked = 0
LARGEST_SUM = 64 * 31 * 17  # values of a channel in the largest of the shapes below


def same(what, ours, theirs, dtype, roundings=16, parts=torch.zeros(())):
    """Within some roundings of the type, at the scale of the largest value, or of an element's parts. torch itself may
    be off by as many roundings of double as its sums have terms."""
    global checked
    checked += 1
    theirs = theirs.detach().double()
    scale = parts.clamp(min=max(1.0, theirs.abs().max().item()))
    worst = ((ours.double() - theirs).abs() / scale).max().item()
    bound = roundings * ROUNDING[dtype] + LARGEST_SUM * ROUNDING[torch.float64]
    assert worst <= bound, f"{what}: off by {worst} of its scale, more than {bound}"


ACTIVATIONS = {"none": (0, lambda z: z), "relu": (1, F.relu), "leaky_relu": (2, F.leaky_relu), "silu": (3, F.silu),
               "gelu": (4, F.gelu)}
AFFINES = ("none", "gamma", "beta", "both")


def affine_of(kind, shape, dtype):
    parameters = parameter_type(dtype)
    return (normal(shape, parameters, 1.0) if kind in ("gamma", "both") else None,
            normal(shape, parameters) if kind in ("beta", "both") else None)


# ---- Padding --------------------------------------------------------------------------------------------------------


class Padding:
    """Of tensors [N, C, …] whose sample n ends after lengths[n] positions. None: there is none."""

    def __init__(self, shape, lengths):
        self.shape, self.lengths = shape, lengths
        self.positions = math.prod(shape[2:])
        self.array = torch.tensor(lengths if lengths else [self.positions] * shape[0])
        self.rows = torch.arange(self.positions) < self.array[:, None]  # [N, positions]
        self.everywhere = self.rows[:, None].expand(shape[0], shape[1], -1).reshape(shape)

    def pointer(self):
        return self.array.data_ptr() if self.lengths else None

    def inputs(self, dtype, residual):
        """x, dy and what is added, zeros in padding for torch."""
        tensors = [normal(self.shape, dtype, mean).masked_fill(~self.everywhere, 0) for mean in (0.5, 0.0, 0.0)]
        return (*tensors[:2], tensors[2] if residual else None)

    def spoilt(self, array):
        """What ours is given: NaN there."""
        return None if array is None else array.masked_fill(~self.everywhere, float("nan"))

    def samples(self, array):
        """Each sample's valid values, [1, C, length]."""
        flat = array.reshape(*self.shape[:2], -1)
        return [flat[n : n + 1, :, :length] for n, length in enumerate(self.array)]

    def values(self, array):
        """All valid values, [values, C]."""
        return array.reshape(*self.shape[:2], -1).movedim(1, 2)[self.rows]

    def tensor(self, values):
        """Back from there, zeros in padding."""
        room = torch.zeros(self.shape[0], self.positions, self.shape[1], dtype=values.dtype)
        return room.index_put((self.rows,), values).movedim(2, 1).reshape(self.shape)


# ---- Derivatives in a direction -------------------------------------------------------------------------------------


def check_direction(what, operation, options, forward, leaves, statistics, view, padding):
    """The rate of change of y in a random direction of all that is given, against torch's. `forward` takes `leaves` by name; a
    norm of rows has no residual behind it. In double alone: rounded coarser, z may lie on the other side of relu's 0."""
    tensors = {name: leaf.detach() for name, leaf in leaves.items() if leaf is not None}
    rates = {name: normal(tensor.shape, torch.float64) for name, tensor in tensors.items()}
    for name in {"x", "residual"} & rates.keys():
        rates[name] = rates[name].masked_fill(~padding.everywhere, 0)
    # torch 1.13 does not differentiate twice with β without γ.
    ones = {"gamma": torch.ones_like(tensors["beta"])} if "beta" in tensors and "gamma" not in tensors else {}
    want = torch.autograd.functional.jvp(lambda *values: forward(**dict(zip(tensors, values)), **ones),
                                         tuple(tensors.values()), tuple(rates.values()))[1]
    x, residual, x_rate, residual_rate = (view.give(padding.spoilt(given.get(name)))
                                          for given in (tensors, rates) for name in ("x", "residual"))
    tangents = Tangents(ctypes.addressof(x_rate), None if residual_rate is None else ctypes.addressof(residual_rate),
                        *(pointer(rates.get(name)) for name in ("gamma", "beta")))
    y_rate = view.room(tensors["x"])
    call(f"{operation}_jvp", options, x, *(() if operation in ROWS else (residual,)), tangents, tensors.get("gamma"),
         tensors.get("beta"), *statistics, y_rate)
    same(f"{what}: derivative in a direction", view.take(y_rate), want, torch.float64, 32)


# ---- Batch norm -----------------------------------------------------------------------------------------------------

IMAGES = [(4, 9, 5, 6), (40, 6), (7, 5, 11), (3, 4, 3, 4, 5), (64, 3, 31, 17)]


def check_batch_norm(dtype, layout, shape, affine, epsilon, activation, residual, lengths=None):
    what = (f"batch norm {dtype} layout {layout} {shape} affine {affine} eps {epsilon} {activation} residual {residual} "
            f"lengths {lengths}")
    channels = shape[1]
    parameters = parameter_type(dtype)
    code, function = ACTIVATIONS[activation]
    padding = Padding(shape, lengths)
    view, options = View(layout), BatchNormOptions(epsilon=epsilon, activation=code, lengths=padding.pointer())
    x, dy, added = padding.inputs(dtype, residual)
    gamma, beta = affine_of(affine, channels, dtype)

    leaves = {"x": exact(x), "gamma": exact(gamma), "beta": exact(beta), "residual": exact(added)}

    def forward(x, gamma=None, beta=None, residual=None):
        z = F.batch_norm(padding.values(x) if lengths else x, None, None, gamma, beta, True, 0.0, epsilon)
        z = padding.tensor(z) if lengths else z
        return function(z if residual is None else z + residual)

    want = forward(**leaves)
    want.backward(dy.double())

    given, y, dx = view.give(padding.spoilt(x)), view.room(x), view.room(x)
    mean, variance = torch.empty(channels, dtype=torch.float64), torch.empty(channels, dtype=torch.float64)
    call("batch_norm_forward", options, given, gamma, beta, view.give(padding.spoilt(added)), y, mean, variance, None)
    same(f"{what}: y", view.take(y), want, dtype)
    values = padding.values(x.double())
    same(f"{what}: mean", mean, values.mean(0), torch.float32)
    same(f"{what}: variance", variance, values.var(0, unbiased=False), torch.float32)

    dgamma, dbeta = torch.empty(channels, dtype=parameters), torch.empty(channels, dtype=parameters)
    dresidual = view.room(x) if residual else None
    call("batch_norm_backward", options, given, y if residual and activation == "relu" else None,
         view.give(padding.spoilt(added)), view.give(padding.spoilt(dy)), gamma, beta, mean, variance, dx, dresidual, dgamma,
         dbeta)
    same(f"{what}: dx", view.take(dx), leaves["x"].grad, dtype, 32)
    # Sums of many terms: of the size of the sum of their magnitudes.
    if gamma is not None:
        same(f"{what}: dgamma", dgamma, leaves["gamma"].grad, parameters, 256)
    if beta is not None:
        same(f"{what}: dbeta", dbeta, leaves["beta"].grad, parameters, 256)
    if residual:
        same(f"{what}: dresidual", view.take(dresidual), leaves["residual"].grad, dtype)
    if dtype == torch.float64:
        check_direction(what, "batch_norm", options, forward, leaves, (mean, variance), view, padding)


def check_running_statistics(dtype, layout, momentum, affine):
    """Five batches of training through torch's own module, then evaluation."""
    what = f"running statistics {dtype} layout {layout} momentum {momentum} affine {affine}"
    channels, view = 6, View(layout)
    parameters = parameter_type(dtype)
    module = torch.nn.BatchNorm2d(channels, eps=1e-4, momentum=momentum, affine=affine).double()
    gamma, beta = affine_of("both" if affine else "none", channels, dtype)
    if affine:
        module.load_state_dict({**module.state_dict(), "weight": gamma.double(), "bias": beta.double()})
    running_mean, running_variance = torch.zeros(channels, dtype=parameters), torch.ones(channels, dtype=parameters)
    running = RunningStatistics(mean=running_mean.data_ptr(), variance=running_variance.data_ptr(),
                                cumulative=momentum is None, running_weight=0.0 if momentum is None else momentum)
    options = BatchNormOptions(epsilon=1e-4)
    mean, variance = torch.empty(channels, dtype=torch.float64), torch.empty(channels, dtype=torch.float64)
    for step in range(5):
        x = normal((3, channels, 4, 5), dtype, step)
        y = view.room(x)
        call("batch_norm_forward", options, view.give(x), gamma, beta, None, y, mean, variance, running)
        same(f"{what}: y", view.take(y), module(x.double()), dtype)
    assert running.batches == module.num_batches_tracked.item(), what
    same(f"{what}: mean", running_mean, module.running_mean, parameters)
    same(f"{what}: variance", running_variance, module.running_var, parameters)
    module.eval()
    x = normal((1, channels, 4, 5), dtype, 2.0)
    y = view.room(x)
    call("batch_norm_inference", options, view.give(x), gamma, beta, running_mean, running_variance, None, y)
    same(f"{what}: inference", view.take(y), module(x.double()), dtype, 32)


def check_moments(dtype, layout):
    """Batches of three sizes, one of them padded: merged, committed and pooled, against torch on all values at once."""
    what = f"moments {dtype} layout {layout}"
    channels, view, parameters = 5, View(layout), parameter_type(dtype)

    def doubles():
        return torch.empty(channels, dtype=torch.float64)

    def running_statistics(mean, variance, **options):
        return RunningStatistics(mean=mean.data_ptr(), variance=variance.data_ptr(), **options)

    def moments_of():
        mean, m2 = doubles(), doubles()
        moments = BatchMoments(channels=channels, mean=mean.data_ptr(), m2=m2.data_ptr())
        moments.kept = mean, m2
        return moments

    first, second = moments_of(), moments_of()
    parts = []
    for moments, shape, lengths in ((first, (4, channels, 6), None), (second, (3, channels, 4, 5), [7, 0, 20]),
                                    (second, (2, channels), None)):
        padding = Padding(shape, lengths)
        x = normal(shape, dtype, len(parts))
        call("batch_moments_accumulate", BatchNormOptions(lengths=padding.pointer()), view.give(padding.spoilt(x)), moments)
        parts.append(padding.values(x.double()))
    call("batch_moments_merge", second, first)
    whole, mean, variance = torch.cat(parts), doubles(), doubles()
    assert first.count == len(whole), what
    call("batch_moments_statistics", first, mean, variance)
    same(f"{what}: mean", mean, whole.mean(0), torch.float32)
    same(f"{what}: variance", variance, whole.var(0, unbiased=False), torch.float32)

    taken = normal((channels,), parameters), normal((channels,), parameters).abs()
    torchs = [array.double() for array in taken]
    F.batch_norm(whole, *torchs, training=True, momentum=0.3)
    code = ctypes.c_int32(DTYPES[dtype])
    call("batch_moments_commit", None, first, code, running_statistics(*taken, running_weight=0.3))
    same(f"{what}: running mean", taken[0], torchs[0], parameters)
    same(f"{what}: running variance", taken[1], torchs[1], parameters)

    # Models that know the statistics of one part each, weighted by its size, pool to those of the whole.
    kept = [(part.mean(0).to(parameters), part.var(0, unbiased=False).to(parameters)) for part in parts]
    models = [running_statistics(*arrays, batches=i) for i, arrays in enumerate(kept)]
    pooled = torch.empty(channels, dtype=parameters), torch.empty(channels, dtype=parameters)
    into = running_statistics(*pooled)
    call("pool_running_statistics", (ctypes.c_void_p * 3)(*map(ctypes.addressof, models)), ctypes.c_size_t(3),
         torch.tensor([float(len(part)) for part in parts], dtype=torch.float64), ctypes.c_size_t(channels), code, into)
    assert into.batches == 3, what
    same(f"{what}: pooled mean", pooled[0], whole.mean(0), parameters)
    same(f"{what}: pooled variance", pooled[1], whole.var(0, unbiased=False), parameters)


# ---- Group and instance norm ----------------------------------------------------------------------------------------

GROUPS = [((7, 6, 11), 3), ((40, 6), 2), ((4, 9, 5, 6), 9), ((3, 4, 3, 4, 5), 1), ((2, 64, 31, 17), 4)]


def check_groups(operation, options, torchs, statistics, dtype, layout, shape, affine, activation, residual, lengths):
    """`torchs` (x, γ, β) → y without activation; `statistics` are in a sample."""
    what = (f"{operation} {dtype} layout {layout} {shape} {statistics} affine {affine} {activation} residual {residual} "
            f"lengths {lengths}")
    channels, parameters = shape[1], parameter_type(dtype)
    function = ACTIVATIONS[activation][1]
    view, padding = View(layout), Padding(shape, lengths)
    options.lengths = padding.pointer()
    x, dy, added = padding.inputs(dtype, residual)
    gamma, beta = affine_of(affine, channels, dtype)

    leaves = {"x": exact(x), "gamma": exact(gamma), "beta": exact(beta), "residual": exact(added)}

    def forward(x, gamma=None, beta=None, residual=None):
        # torch 1.13's group norm has no backward for β without γ.
        if affine == "beta":
            gamma = torch.ones(channels, dtype=torch.float64)
        if lengths:
            z = torch.cat([F.pad(torchs(sample, gamma, beta) if sample.numel() else sample,
                                 (0, padding.positions - sample.shape[2])) for sample in padding.samples(x)]).reshape(shape)
        else:
            z = torchs(x, gamma, beta)
        return function(z if residual is None else z + residual)

    want = forward(**leaves)
    want.backward(dy.double())

    given, y, dx = view.give(padding.spoilt(x)), view.room(x), view.room(x)
    mean, variance = torch.empty(shape[0], statistics, dtype=torch.float64), torch.empty(shape[0], statistics, dtype=torch.float64)
    call(f"{operation}_forward", options, given, gamma, beta, view.give(padding.spoilt(added)), y, mean, variance)
    same(f"{what}: y", view.take(y), want, dtype)
    for n, sample in enumerate(padding.samples(x.double())):
        units = sample.reshape(statistics, -1) if sample.numel() else torch.zeros(statistics, 1, dtype=torch.float64)
        same(f"{what}: mean", mean[n], units.mean(1), torch.float32)
        same(f"{what}: variance", variance[n], units.var(1, unbiased=False), torch.float32)

    dgamma, dbeta = torch.empty(channels, dtype=parameters), torch.empty(channels, dtype=parameters)
    dresidual = view.room(x) if residual else None
    call(f"{operation}_backward", options, given, y if residual and activation == "relu" else None,
         view.give(padding.spoilt(added)), view.give(padding.spoilt(dy)), gamma, beta, mean, variance, dx, dresidual, dgamma,
         dbeta)
    # In a group of few values, which may lie close together, the parts of dx cancel.
    of_group = (variance + options.epsilon).rsqrt() * dy.abs().max() * (1 if gamma is None else gamma.abs().max())
    parts = of_group[:, :, None].expand(-1, -1, x[0].numel() // statistics).reshape(shape)
    same(f"{what}: dx", view.take(dx), leaves["x"].grad, dtype, 32, parts)
    if gamma is not None:
        same(f"{what}: dgamma", dgamma, leaves["gamma"].grad, parameters, 256)
    if beta is not None:
        same(f"{what}: dbeta", dbeta, leaves["beta"].grad, parameters, 256)
    if residual:
        same(f"{what}: dresidual", view.take(dresidual), leaves["residual"].grad, dtype)
    if dtype == torch.float64:
        check_direction(what, operation, options, forward, leaves, (mean, variance), view, padding)


def check_group_norm(dtype, layout, shape, groups, affine, epsilon, activation, residual, lengths=None):
    def torchs(x, gamma, beta):
        return F.group_norm(x, groups, gamma, beta, epsilon)

    options = GroupNormOptions(groups=groups, epsilon=epsilon, activation=ACTIVATIONS[activation][0])
    check_groups("group_norm", options, torchs, groups, dtype, layout, shape, affine, activation, residual, lengths)


def check_instance_norm(dtype, layout, shape, affine, epsilon, activation, residual, lengths=None):
    def torchs(x, gamma, beta):
        return F.instance_norm(x, weight=gamma, bias=beta, eps=epsilon)

    options = InstanceNormOptions(epsilon=epsilon, activation=ACTIVATIONS[activation][0])
    check_groups("instance_norm", options, torchs, shape[1], dtype, layout, shape, affine, activation, residual, lengths)


# ---- Layer and RMS norm ---------------------------------------------------------------------------------------------


def root_mean_square_norm(x, features, gamma, beta, epsilon):
    """torch 1.13 has none: the formula, for autograd."""
    axes = tuple(range(x.dim() - len(features), x.dim()))
    y = x * (x.square().mean(axes, keepdim=True) + epsilon).rsqrt()
    y = y if gamma is None else y * gamma
    return y if beta is None else y + beta


class RowPadding(Padding):
    """Of tensors [N, …, features…] whose sample n ends after lengths[n] of its rows, over the last `axes` axes."""

    def __init__(self, shape, axes, lengths):
        self.shape, self.lengths = shape, lengths
        self.positions = math.prod(shape[1 : len(shape) - axes])
        self.array = torch.tensor(lengths if lengths else [self.positions] * shape[0])
        rows = torch.arange(self.positions) < self.array[:, None]
        self.everywhere = rows.reshape(*shape[: len(shape) - axes], *[1] * axes).expand(shape)


def check_rows(operation, options_type, torchs, dtype, shape, axes, affine, epsilon, activation, residual, row_stride=0,
               lengths=None):
    what = (f"{operation} {dtype} {shape} axes {axes} affine {affine} eps {epsilon} {activation} residual {residual} {row_stride} "
            f"lengths {lengths}")
    features, parameters = shape[len(shape) - axes:], parameter_type(dtype)
    code, function = ACTIVATIONS[activation]
    options = options_type(epsilon=epsilon, normalized_axes=axes, activation=code)
    view = View(CHANNELS_FIRST, row_stride)  # rows lie as they do in torch
    padding = RowPadding(shape, axes, lengths)
    options.lengths = padding.pointer()
    x, dy, added = padding.inputs(dtype, residual)
    gamma, beta = affine_of(affine, features, dtype)

    # What is normalized, x + residual, is rounded to the type first. Its gradient also has a part from elsewhere.
    total = x + added if residual else x
    leaves = {"x": exact(total), "gamma": exact(gamma), "beta": exact(beta)}

    def forward(x, gamma=None, beta=None):
        return function(torchs(x, features, gamma, beta, epsilon)).masked_fill(~padding.everywhere, 0)

    want = forward(**leaves)
    want.backward(dy.double())
    elsewhere = normal(shape, dtype).masked_fill(~padding.everywhere, 0) if residual else None

    y, dx, sum_ = view.room(x), view.room(x), view.room(x) if residual else None
    count = total.numel() // math.prod(features)
    statistics = [torch.empty(count, dtype=torch.float64) for _ in range(1 if operation == "rms_norm" else 2)]
    call(f"{operation}_forward", options, view.give(padding.spoilt(x)), gamma, beta, view.give(padding.spoilt(added)), sum_, y,
         *statistics)
    same(f"{what}: y", view.take(y), want, dtype)
    if residual:
        assert torch.equal(view.take(sum_), total), f"{what}: sum"
    rows = total.double().reshape(count, -1)
    if operation == "rms_norm":
        same(f"{what}: mean square", statistics[0], rows.square().mean(1), torch.float32)
    else:
        same(f"{what}: mean", statistics[0], rows.mean(1), torch.float32)
        same(f"{what}: variance", statistics[1], rows.var(1, unbiased=False), torch.float32)

    dgamma, dbeta = torch.empty(features, dtype=parameters), torch.empty(features, dtype=parameters)
    call(f"{operation}_backward", options, view.give(padding.spoilt(total)), view.give(padding.spoilt(dy)), gamma, beta, *statistics,
         view.give(padding.spoilt(elsewhere)), dx, dgamma, dbeta)
    dtotal = leaves["x"].grad + elsewhere.double() if residual else leaves["x"].grad
    same(f"{what}: dx", view.take(dx), dtotal, dtype, 32)
    if gamma is not None:
        same(f"{what}: dgamma", dgamma, leaves["gamma"].grad, parameters, 256)
    if beta is not None:
        same(f"{what}: dbeta", dbeta, leaves["beta"].grad, parameters, 256)
    if dtype == torch.float64:
        check_direction(what, operation, options, forward, leaves, statistics, view, padding)


MATRICES = [((33, 50), 1, 57), ((40, 7), 1, 0), ((5, 9, 64), 1, 0), ((3, 4, 5, 6), 2, 0), ((2, 3, 4, 3, 5), 3, 0),
            ((300, 512), 1, 0)]  # shape, axes of a row, row_stride
PADDED_ROWS = [((4, 6, 50), 1, [6, 0, 2, 5]), ((5, 33), 1, [1, 0, 1, 1, 0]), ((3, 4, 5, 6, 3), 2, [20, 0, 13])]
ROWS = {"layer_norm": (LayerNormOptions, F.layer_norm), "rms_norm": (RmsNormOptions, root_mean_square_norm)}

# ---- The tables -----------------------------------------------------------------------------------------------------

# Every combination on one shape, two on every other.
EVERY = list(itertools.product(AFFINES, ACTIVATIONS, (False, True)))
TWO = [("none", "none", False), ("both", "relu", True)]

PADDED = [((4, 6, 5, 6), [30, 0, 2, 17], 3), ((5, 7, 11), [11, 3, 11, 5, 8], 1), ((3, 40, 2, 3, 12), [70, 33, 0], 8)]

for dtype, layout in itertools.product(DTYPES, (CHANNELS_LAST, CHANNELS_FIRST)):
    for index, shape in enumerate(IMAGES):
        for affine, activation, residual in EVERY if index == 0 else TWO:
            check_batch_norm(dtype, layout, shape, affine, 1e-5, activation, residual)
            if len(shape) > 2:
                check_instance_norm(dtype, layout, shape, affine, 1e-5, activation, residual)
    for index, (shape, groups) in enumerate(GROUPS):
        for affine, activation, residual in EVERY if index == 0 else TWO:
            check_group_norm(dtype, layout, shape, groups, affine, 1e-5, activation, residual)
    for epsilon in (1e-12, 1e-3, 10.0):
        check_batch_norm(dtype, layout, IMAGES[0], "both", epsilon, "none", False)
        check_group_norm(dtype, layout, (3, 8, 5, 4), 4, "both", epsilon, "none", False)
        check_instance_norm(dtype, layout, IMAGES[0], "both", epsilon, "none", False)
    for shape, lengths, groups in PADDED:
        for affine, activation, residual in EVERY if shape == PADDED[0][0] else TWO:
            check_batch_norm(dtype, layout, shape, affine, 1e-5, activation, residual, lengths)
            check_group_norm(dtype, layout, shape, groups, affine, 1e-5, activation, residual, lengths)
            check_instance_norm(dtype, layout, shape, affine, 1e-5, activation, residual, lengths)
    check_moments(dtype, layout)
    for momentum, affine in itertools.product((0.1, 0.75, 0.0, 1.0, None), (False, True)):
        check_running_statistics(dtype, layout, momentum, affine)

for dtype, (operation, (options_type, torchs)) in itertools.product(DTYPES, ROWS.items()):
    def check(*arguments):
        check_rows(operation, options_type, torchs, dtype, *arguments)

    for index, (shape, axes, row_stride) in enumerate(MATRICES):
        for affine, activation, residual in EVERY if index == 0 else TWO:
            check(shape, axes, affine, 1e-5, activation, residual, row_stride)
    for shape, axes, lengths in PADDED_ROWS:
        for affine, activation, residual in EVERY if shape == PADDED_ROWS[0][0] else TWO:
            check(shape, axes, affine, 1e-5, activation, residual, 0, lengths)
    for epsilon in (1e-12, 1e-3, 10.0):
        check((6, 33), 1, "both", epsilon, "none", False)

print(f"{checked} tensors agree with torch {torch.__version__}")
