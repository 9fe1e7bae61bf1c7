#pragma once

// Of FuseMount's own files: what libfuse calls, and what it is answered with. Thread: under the mount's `head`.

#define FUSE_USE_VERSION 314
#include <fuse3/fuse_lowlevel.h>

#include <functional>
#include <vector>

#include "execution/statefs/file_system.hpp"

namespace zz::execution::statefs {

// What an operation has at hand.
struct Served {
  FileSystem& files;
  // The request is answered by `retry`, once it is called and nothing is missing any more.
  std::function<void(fuse_req_t request, std::function<void()> retry, const std::vector<Want>& missing)> park;
  std::uint64_t open_for_writing = 0;
  std::uint64_t written_back = 0;
};

// Their userdata is a Served.
const fuse_lowlevel_ops& fuse_operations();

}  // namespace zz::execution::statefs
