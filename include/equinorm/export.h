/* EQUINORM_API marks what the library shows to others; every other symbol of it is hidden. For C and C++. */
#ifndef EQUINORM_EXPORT_H
#define EQUINORM_EXPORT_H

#define EQUINORM_API __attribute__((visibility("default")))

#endif
