#pragma once

// What a guest mounted and did not take off: a process that is killed leaves its FUSE mounts behind, and their places
// answer nothing but "Transport endpoint is not connected". Linux. No state, any thread.

#include <string>
#include <vector>

#include "base/result.hpp"

namespace zz::vmpool {

// Where something is mounted at `directory` or below it, deepest last. The directory need not answer.
std::vector<std::string> mounts_below(const std::string& directory);

// Takes all of that off, by force: who still uses it gets errors. Without root by libfuse's fusermount3, which takes
// off what this user mounted. Error: what is still there. Before files of a guest are removed, since they would be
// those of the mount.
Result<void> take_off_mounts(const std::string& directory);

}  // namespace zz::vmpool
