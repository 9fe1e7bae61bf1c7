#pragma once

// What processes and directories of this machine take: memory, descriptors, threads, children, bytes on disk. What
// cannot be read, because it is gone, counts as nothing. Linux. No state, any thread.

#include <sys/stat.h>

#include <cstdint>
#include <filesystem>
#include <fstream>
#include <sstream>
#include <string>

namespace zz::test {

struct Footprint {
  std::uint64_t resident_kib = 0;
  std::uint64_t descriptors = 0;  // but for regular files
  std::uint64_t files = 0;        // regular files that are open
  std::uint64_t threads = 0;
  std::uint64_t children = 0;
};

inline Footprint footprint_of(std::int64_t pid) {
  Footprint out;
  const std::string place = "/proc/" + std::to_string(pid);
  std::error_code error;
  std::ifstream status(place + "/status");
  for (std::string line; std::getline(status, line);) {
    std::istringstream words(line);
    std::string name;
    words >> name;
    if (name == "VmRSS:") words >> out.resident_kib;
    if (name == "Threads:") words >> out.threads;
  }
  for (const auto& entry : std::filesystem::directory_iterator(place + "/fd", error)) {
    struct stat info {};
    if (::stat(entry.path().c_str(), &info) != 0) continue;
    ++(S_ISREG(info.st_mode) ? out.files : out.descriptors);
  }
  for (const auto& task : std::filesystem::directory_iterator(place + "/task", error)) {
    std::ifstream children(task.path() / "children");
    for (std::int64_t child = 0; children >> child;) ++out.children;
  }
  return out;
}

struct DiskUse {
  std::uint64_t kib = 0;  // in blocks, as du tells it
  std::uint64_t files = 0;
};

inline DiskUse disk_use_of(const std::string& directory) {
  DiskUse out;
  std::error_code error;
  for (std::filesystem::recursive_directory_iterator it(directory, error), end; !error && it != end;
       it.increment(error)) {
    struct stat info {};
    if (::lstat(it->path().c_str(), &info) != 0 || !S_ISREG(info.st_mode)) continue;
    out.kib += static_cast<std::uint64_t>(info.st_blocks) / 2;
    ++out.files;
  }
  return out;
}

}  // namespace zz::test
