#pragma once

// The fresh copy of a service's initial state that every incarnation starts from.

#include <string>

#include "base/result.hpp"

namespace zz::execution {

// Makes directory `to` (which must not exist yet) and fills it with what `from` holds: regular files and directories,
// with their permissions and modification times, in the order of their names, so that equal sources give equal
// copies. Anything else in `from` (links, devices, sockets) is an error that names it. An empty `from` gives an empty
// directory.
Result<void> copy_initial_state(const std::string& from, const std::string& to);

}  // namespace zz::execution
