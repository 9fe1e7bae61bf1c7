#pragma once

// CPU time of processes, from /proc. Any thread.

#include <sys/types.h>

#include <string>
#include <vector>

#include "base/ids.hpp"

namespace zz::apps {

// CPU time that `roots` and all their living descendants have used, user and system, and that of descendants that
// ended and were waited for. Each process counts once. In the kernel's ticks (10 ms as a rule). Processes that do not
// exist count nothing.
Micros cpu_time_of_trees(const std::vector<pid_t>& roots);

// The daemons on this machine that run the cluster in `dir` (`zz agreement`, `zz host`, `zz gateway`).
std::vector<pid_t> daemons_of_cluster(const std::string& dir);

}  // namespace zz::apps
