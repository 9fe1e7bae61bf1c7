#include "execution/initial_state.hpp"

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <sys/stat.h>

#include <filesystem>
#include <fstream>

#include "execution/service_process.hpp"
#include "tests/execution/temp_dir.hpp"

namespace zz::execution::testing {
namespace {

namespace fs = std::filesystem;
using ::testing::HasSubstr;

void put(const fs::path& path, const std::string& text) {
  fs::create_directories(path.parent_path());
  std::ofstream(path) << text;
}
std::string get(const fs::path& path) {
  std::ifstream file(path);
  return {std::istreambuf_iterator<char>(file), {}};
}

TEST(InitialState, IsCopiedWithPermissionsAndTimes) {
  TempDir dir;
  put(dir.path / "from/a/b.txt", "hello");
  put(dir.path / "from/run.sh", "#!/bin/sh\n");
  fs::permissions(dir.path / "from/run.sh", fs::perms::owner_all);
  const auto then = fs::file_time_type::clock::now() - std::chrono::hours(100);
  fs::last_write_time(dir.path / "from/a/b.txt", then);
  fs::last_write_time(dir.path / "from/a", then);
  ASSERT_TRUE(copy_initial_state(dir.path / "from", dir.path / "to").ok());
  EXPECT_EQ(get(dir.path / "to/a/b.txt"), "hello");
  EXPECT_EQ(fs::status(dir.path / "to/run.sh").permissions(), fs::perms::owner_all);
  EXPECT_EQ(fs::last_write_time(dir.path / "to/a/b.txt"), fs::last_write_time(dir.path / "from/a/b.txt"));
  EXPECT_EQ(fs::last_write_time(dir.path / "to/a"), fs::last_write_time(dir.path / "from/a"));
}

TEST(InitialState, IsAnEmptyDirectoryWhereThereIsNone) {
  TempDir dir;
  ASSERT_TRUE(copy_initial_state("", dir.path / "to").ok());
  EXPECT_TRUE(fs::is_empty(dir.path / "to"));
}

TEST(InitialState, IsNeverCopiedOverAUsedState) {
  TempDir dir;
  put(dir.path / "from/a", "a");
  fs::create_directory(dir.path / "to");
  const auto copied = copy_initial_state(dir.path / "from", dir.path / "to");
  ASSERT_FALSE(copied.ok());
  EXPECT_THAT(copied.error(), HasSubstr("to is there already"));
}

TEST(InitialState, WithALinkOrADeviceIsRefusedByName) {
  TempDir dir;
  put(dir.path / "from/a", "a");
  fs::create_symlink("/etc/passwd", dir.path / "from/link");
  auto copied = copy_initial_state(dir.path / "from", dir.path / "to");
  ASSERT_FALSE(copied.ok());
  EXPECT_THAT(copied.error(), HasSubstr("from/link"));
  fs::remove(dir.path / "from/link");
  ASSERT_EQ(mkfifo((dir.path / "from/pipe").c_str(), 0600), 0);
  copied = copy_initial_state(dir.path / "from", dir.path / "to2");
  ASSERT_FALSE(copied.ok());
  EXPECT_THAT(copied.error(), HasSubstr("from/pipe"));
}

TEST(InitialState, ThatDoesNotExistIsNamed) {
  TempDir dir;
  const auto copied = copy_initial_state(dir.path / "nowhere", dir.path / "to");
  ASSERT_FALSE(copied.ok());
  EXPECT_THAT(copied.error(), HasSubstr("nowhere is not a directory"));
}

TEST(ServiceCommandText, NamesOfVariablesAreReplacedWhole) {
  EXPECT_EQ(substitute("-p $PORT -s $STATE/x", "17", "/s"), "-p 17 -s /s/x");
  EXPECT_EQ(substitute("$PORTAL $STATE_X ${PORT} $ $POR", "17", "/s"), "$PORTAL $STATE_X ${PORT} $ $POR");
  EXPECT_EQ(substitute("$PORT$STATE", "$STATE", "/s"), "$STATE/s");
}

TEST(PortReservation, TwoNeverGiveTheSamePort) {
  std::vector<PortReservation> held;
  std::vector<std::uint16_t> ports;
  for (int i = 0; i < 200; ++i) {
    auto made = PortReservation::make();
    ASSERT_TRUE(made.ok());
    ports.push_back(made->port());
    held.push_back(std::move(*made));
  }
  std::sort(ports.begin(), ports.end());
  EXPECT_EQ(std::unique(ports.begin(), ports.end()), ports.end());
}

}  // namespace
}  // namespace zz::execution::testing
