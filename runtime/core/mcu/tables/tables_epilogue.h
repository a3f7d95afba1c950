/* From integer sums to outputs on cores without a floating-point unit. */
#ifndef TATVPR_TABLES_EPILOGUE_H
#define TATVPR_TABLES_EPILOGUE_H

#include "../epilogue.h"

TATVPR_DEFINE_EPILOGUE(tatvpr_tables_outputs, int32_t)

#endif
