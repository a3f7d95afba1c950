/* What kernels that TVM generates may call, for toolchains without a C library: the firmware has to
 * bring those that its model really needs; a missing one is an error of the linker.
 */
#ifndef TATVPR_FREESTANDING_MATH_H
#define TATVPR_FREESTANDING_MATH_H

float expf(float);
float logf(float);
float powf(float, float);
float sqrtf(float);
float tanhf(float);
float erff(float);
float floorf(float);
float roundf(float);
float fabsf(float);

#endif
