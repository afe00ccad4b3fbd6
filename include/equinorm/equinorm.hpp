// Equinorm: normalization for neural networks. This header includes every operation.
#pragma once

#include "equinorm/batch_moments.hpp"
#include "equinorm/batch_norm.hpp"
#include "equinorm/execution.hpp"
#include "equinorm/group_norm.hpp"
#include "equinorm/instance_norm.hpp"
#include "equinorm/layer_norm.hpp"
#include "equinorm/norm.hpp"
#include "equinorm/rms_norm.hpp"
#include "equinorm/status.hpp"
#include "equinorm/tensor.hpp"
#include "equinorm/types.hpp"
