#define EQUINORM_ELEMENT double
#include "kernels/table.inc"
