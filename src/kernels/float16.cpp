#define EQUINORM_ELEMENT float16
#include "kernels/table.inc"
