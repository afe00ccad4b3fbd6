#define EQUINORM_ELEMENT float
#include "kernels/table.inc"
