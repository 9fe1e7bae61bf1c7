#include "execution/initial_state.hpp"

#include <algorithm>
#include <filesystem>
#include <system_error>
#include <vector>

namespace zz::execution {

namespace fs = std::filesystem;

namespace {

constexpr int kDepthMax = 64;

Error cannot(const std::string& what, const fs::path& path, const std::error_code& error) {
  return Error{"initial_state: cannot " + what + " " + path.string() + ": " + error.message()};
}

// As the source has them, so that Last-Modified and the like are equal on all slots.
Result<void> copy_attributes(const fs::path& from, const fs::path& to) {
  std::error_code error;
  const fs::file_status status = fs::symlink_status(from, error);
  if (error) return cannot("read", from, error);
  fs::permissions(to, status.permissions(), error);
  if (error) return cannot("set the permissions of", to, error);
  const auto time = fs::last_write_time(from, error);
  if (error) return cannot("read", from, error);
  fs::last_write_time(to, time, error);
  if (error) return cannot("set the time of", to, error);
  return {};
}

Result<void> copy_entry(const fs::path& from, const fs::path& to, int depth);

Result<void> copy_directory(const fs::path& from, const fs::path& to, int depth) {
  if (depth > kDepthMax) return Error{"initial_state: " + from.string() + " is nested too deeply"};
  std::error_code error;
  fs::create_directory(to, error);
  if (error) return cannot("make", to, error);
  std::vector<fs::path> names;
  for (fs::directory_iterator it(from, error), end; !error && it != end; it.increment(error))
    names.push_back(it->path().filename());
  if (error) return cannot("read", from, error);
  std::sort(names.begin(), names.end());
  for (const fs::path& name : names) {
    if (auto copied = copy_entry(from / name, to / name, depth); !copied) return copied;
  }
  return copy_attributes(from, to);
}

Result<void> copy_entry(const fs::path& from, const fs::path& to, int depth) {
  std::error_code error;
  const fs::file_status status = fs::symlink_status(from, error);
  if (error) return cannot("read", from, error);
  if (fs::is_directory(status)) return copy_directory(from, to, depth + 1);
  if (!fs::is_regular_file(status))
    return Error{"initial_state: " + from.string() + " is neither a regular file nor a directory"};
  fs::copy_file(from, to, error);
  if (error) return cannot("copy", from, error);
  return copy_attributes(from, to);
}

}  // namespace

Result<void> copy_initial_state(const std::string& from, const std::string& to) {
  std::error_code error;
  if (fs::symlink_status(to, error).type() != fs::file_type::not_found)
    return Error{"initial_state: " + to + " is there already; a slot starts from a fresh copy"};
  error.clear();
  if (from.empty()) {
    fs::create_directory(to, error);
    if (error) return cannot("make", to, error);
    return {};
  }
  if (!fs::is_directory(from, error)) return Error{"initial_state: " + from + " is not a directory"};
  return copy_directory(from, to, 0);
}

}  // namespace zz::execution
