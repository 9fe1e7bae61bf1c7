#pragma once

// What has to happen in a long run, or the simulator has gone blind somewhere: every kind of fault, of Byzantine party
// and of message, and every path of recovery that has a name.

#include <string>
#include <vector>

namespace zz::sim {

std::vector<std::string> must_happen();

}  // namespace zz::sim
