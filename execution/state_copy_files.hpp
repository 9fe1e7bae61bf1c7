#pragma once

// What StateCopy does with a plain directory: system calls with the errors that people are told. They block; any
// thread. Names are looked up in an open directory and never followed.

#include <cstdint>
#include <string>
#include <vector>

#include "base/bytes.hpp"
#include "base/result.hpp"
#include "execution/statefs/layout.hpp"

namespace zz::execution::copy {

struct Fd {
  explicit Fd(int fd) : value(fd) {}
  Fd(const Fd&) = delete;
  Fd& operator=(const Fd&) = delete;
  ~Fd();
  const int value;
};

[[nodiscard]] Error cannot(const std::string& what, const std::string& path, int number);

// All names in an open directory but "." and "..", in their order.
Result<std::vector<std::string>> names_of(int directory, const std::string& path);
Result<std::string> target_of(int directory, const std::string& name, const std::string& path);
// Exactly so many bytes; that there are fewer is an error.
Result<Bytes> read_at(int file, std::uint64_t offset, std::uint64_t length, const std::string& path);
// Where the next byte is that is not in a hole; `offset` where that is not known, `size` behind the last.
std::uint64_t next_data(int file, std::uint64_t offset, std::uint64_t size);
Result<void> write_at(int file, std::uint64_t offset, ByteView bytes, const std::string& path);
// Owner, permissions, and the time of modification.
Result<void> set_attributes(int fd, const statefs::Record& record, const std::string& path);
Result<void> set_link_attributes(int directory, const char* name, const statefs::Record& record,
                                 const std::string& path);
// Removes everything in an open directory, up to `depth` levels below it.
Result<void> empty_directory(int directory, const std::string& path, int depth);

}  // namespace zz::execution::copy
