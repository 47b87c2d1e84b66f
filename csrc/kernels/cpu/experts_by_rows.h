// Experts of int4 whose products are those of int4_rows.h: what kernels.h declares, where these are the better way.
#pragma once

#include <cstddef>

#include "common/thread_pool.h"
#include "kernels/cpu/int4_rows.h"
#include "kernels/params.h"

namespace dgrt {

// Null where panels are the better way: other formats, processors without such products, more tokens per expert, short rows.
const Int4RowProducts* RowProductsFor(const ExpertsParams& params);

size_t ExpertsByRowsWorkspaceBytes(const ExpertsParams& params, int num_threads);
void LaunchExpertsByRows(const ExpertsParams& params, const Int4RowProducts& products, ThreadPool& pool);

}  // namespace dgrt
