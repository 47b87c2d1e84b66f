// Hashes of ranges of weight files. Used by package_files.cc.
#pragma once

#include <cstdint>
#include <string>

#include "common/sha256.h"
#include "engine/package_dir.h"

namespace dgrt {

void HashRange(const PackageFile& file, int64_t offset, int64_t bytes, Sha256& hash);

// The hash of the file's size, header and a few blocks of every tensor (export/README.md); `bytes`: the size. Costs
// milliseconds for tens of gigabytes. "" if a large file is not, or no longer, in the format safetensors.
std::string SampleOf(const PackageFile& file, int64_t bytes);

}  // namespace dgrt
