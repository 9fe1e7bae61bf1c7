#pragma once

// StateImport: a service's initial state directory into its state file system, step by step.
//
// Equal directories give equal states on all replicas: names in order, permissions as the directory has them, times all
// zero, one owner. Regular files and directories; anything else is an error that names it. A hard link becomes a file
// of its own.
//
// Blocks for the reads of the directory that a step makes. Takes `head` for each change, so nobody who calls it may
// hold it.

#include <filesystem>
#include <fstream>
#include <mutex>
#include <string>
#include <vector>

#include "base/result.hpp"
#include "execution/statefs/file_system.hpp"

namespace zz::execution {

class StateImport {
 public:
  // An empty `from` gives an empty directory. All must outlive it.
  StateImport(statefs::FileSystem& files, std::mutex& head, std::string from, const statefs::Owner& owner);

  // About `bytes` more, one directory's names at least. True: all of it is in.
  Result<bool> step(std::size_t bytes);

 private:
  struct Directory {
    std::filesystem::path path;
    statefs::Inode inode;
    std::vector<std::filesystem::path> names;  // in order
    std::size_t next = 0;
  };
  Result<void> begin();
  Result<void> enter(const std::filesystem::path& path, statefs::Inode inode);
  Result<void> take(const std::filesystem::path& path, statefs::Inode parent);
  Result<std::size_t> read_on();

  statefs::FileSystem& files_;
  std::mutex& head_;
  std::filesystem::path from_;
  statefs::Owner owner_;
  bool has_begun_ = false;
  std::vector<Directory> way_;  // from the root to where it is
  std::ifstream file_;          // that is being read, if it is open
  std::filesystem::path file_path_;
  statefs::Inode file_inode_;
  std::uint64_t file_offset_ = 0;
};

}  // namespace zz::execution
