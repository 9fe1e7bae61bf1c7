#include "apps/bench_run.hpp"

#include <fmt/format.h>
#include <stdlib.h>

#include <cmath>
#include <csignal>
#include <filesystem>
#include <iostream>

namespace zz::apps {

namespace fs = std::filesystem;

Result<TemporaryDirectory> TemporaryDirectory::make() {
  std::error_code error;
  std::string path = (fs::temp_directory_path(error) / "zz-bench-XXXXXX").string();
  if (::mkdtemp(path.data()) == nullptr) return Error{fmt::format("cannot make a directory like {}", path)};
  return TemporaryDirectory(std::move(path));
}

TemporaryDirectory::~TemporaryDirectory() {
  std::error_code ignored;
  if (!path_.empty()) fs::remove_all(path_, ignored);
}

BenchLoop::BenchLoop() : signals_(loop_, SIGINT, SIGTERM) {
  signals_.async_wait([this](const boost::system::error_code& error, int) { interrupted_ = !error; });
}

bool BenchLoop::interrupted() {
  loop_.poll();
  loop_.restart();
  return interrupted_;
}

void say(std::string_view line) { std::cerr << "zz bench: " << line << std::endl; }

Error interrupted() { return Error{"interrupted"}; }

double rounded(double value) { return std::round(value * 1000) / 1000; }

}  // namespace zz::apps
