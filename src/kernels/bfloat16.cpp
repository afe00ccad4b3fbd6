#define EQUINORM_ELEMENT bfloat16
#include "kernels/table.inc"
