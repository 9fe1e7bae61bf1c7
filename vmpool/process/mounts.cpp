#include "vmpool/process/mounts.hpp"

#include <spawn.h>
#include <sys/mount.h>
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <cerrno>
#include <filesystem>
#include <fstream>
#include <sstream>

namespace zz::vmpool {
namespace {

namespace fs = std::filesystem;

constexpr int kRoundsMax = 16;  // of taking off; one place may be mounted over several times

// The kernel writes blanks and backslashes of a path as \ooo.
std::string unescaped(const std::string& text) {
  const auto is_octal = [](char c) { return c >= '0' && c <= '7'; };
  std::string out;
  for (std::size_t i = 0; i < text.size(); ++i) {
    if (text[i] == '\\' && i + 3 < text.size() && std::all_of(&text[i + 1], &text[i + 4], is_octal)) {
      out += static_cast<char>((text[i + 1] - '0') * 64 + (text[i + 2] - '0') * 8 + (text[i + 3] - '0'));
      i += 3;
    } else {
      out += text[i];
    }
  }
  return out;
}

void take_off(const std::string& place) {
  if (::umount2(place.c_str(), MNT_FORCE | MNT_DETACH | UMOUNT_NOFOLLOW) == 0 || ::geteuid() == 0) return;
  std::array<std::string, 5> words = {"fusermount3", "-u", "-z", "--", place};
  std::array<char*, 6> argv{};
  for (std::size_t i = 0; i < words.size(); ++i) argv[i] = words[i].data();
  pid_t pid = 0;
  if (::posix_spawnp(&pid, argv[0], nullptr, nullptr, argv.data(), environ) != 0) return;
  while (::waitpid(pid, nullptr, 0) < 0 && errno == EINTR) {
  }
}

}  // namespace

std::vector<std::string> mounts_below(const std::string& directory) {
  // As the kernel names it, of which only the last part may be a place that does not answer.
  const fs::path path = fs::path(directory).lexically_normal();
  std::error_code error;
  const fs::path parent = fs::canonical(path.parent_path(), error);
  const std::string root = (error ? path : parent / path.filename()).string();
  std::vector<std::string> out;
  std::ifstream table("/proc/self/mountinfo");
  for (std::string line; std::getline(table, line);) {
    std::istringstream fields(line);
    std::string place;
    for (int i = 0; i < 5; ++i) fields >> place;
    place = unescaped(place);
    if (place == root || place.starts_with(root + "/")) out.push_back(place);
  }
  std::sort(out.begin(), out.end());
  return out;
}

Result<void> take_off_mounts(const std::string& directory) {
  std::vector<std::string> left = mounts_below(directory);
  for (int round = 0; round < kRoundsMax && !left.empty(); ++round) {
    for (auto place = left.rbegin(); place != left.rend(); ++place) take_off(*place);
    left = mounts_below(directory);
  }
  if (left.empty()) return {};
  return Error{left.back() + " is still mounted"};
}

}  // namespace zz::vmpool
