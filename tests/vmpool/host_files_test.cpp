#include "vmpool/host_files.hpp"

#include <sys/stat.h>
#include <sys/wait.h>

#include <array>

#include "tests/vmpool/process_fixture.hpp"

namespace zz::vmpool {
namespace {

TEST(IncarnationFile, BeginsAtZeroAndReadsBackWhatWasStored) {
  const TempDir dir;
  const std::string path = dir.path() + "/host-0.incarnation";
  ASSERT_TRUE(load_incarnation(path));
  EXPECT_EQ(*load_incarnation(path), Incarnation{0});
  for (const std::uint64_t value : {1ull, 17ull, 18446744073709551615ull}) {
    ASSERT_TRUE(store_incarnation(path, Incarnation{value}));
    EXPECT_EQ(*load_incarnation(path), Incarnation{value});
  }
  EXPECT_FALSE(std::filesystem::exists(path + ".new"));
}

TEST(IncarnationFile, RefusesAFileThatIsNotANumberAndNamesIt) {
  const TempDir dir;
  const std::string path = dir.path() + "/count";
  for (const auto* text : {"", "\n", "12", "12 \n", "-1\n", "x\n", "12\n13\n", "99999999999999999999\n"}) {
    std::ofstream(path, std::ios::trunc) << text;
    const auto loaded = load_incarnation(path);
    ASSERT_FALSE(loaded) << text;
    EXPECT_NE(loaded.error().find(path), std::string::npos);
  }
}

TEST(IncarnationFile, SaysWhichFileCannotBeWritten) {
  const auto stored = store_incarnation("/nowhere/count", Incarnation{1});
  ASSERT_FALSE(stored);
  EXPECT_NE(stored.error().find("/nowhere/count"), std::string::npos);
}

TEST(HostLock, WaitsForTheWardenOfAnEarlierDaemon) {
  const TempDir dir;
  std::array<int, 2> locked{};
  std::array<int, 2> release{};
  ASSERT_EQ(::pipe(locked.data()), 0);
  ASSERT_EQ(::pipe(release.data()), 0);
  const pid_t former = ::fork();
  if (former == 0) {
    const auto lock = HostLock::take(dir.path(), HostId{1});
    (void)!::write(locked[1], "x", 1);
    char byte = 0;
    (void)!::read(release[0], &byte, 1);
    ::_exit(lock ? 0 : 1);  // lets go of the lock as any death does
  }
  char byte = 0;
  ASSERT_EQ(::read(locked[0], &byte, 1), 1);
  // Another host of the same directory has its own.
  EXPECT_TRUE(HostLock::take(dir.path(), HostId{2}));
  const pid_t releaser = ::fork();
  if (releaser == 0) {
    (void)!::write(release[1], "x", 1);
    ::_exit(0);
  }
  EXPECT_TRUE(HostLock::take(dir.path(), HostId{1}));
  int status = 0;
  ASSERT_EQ(::waitpid(former, &status, 0), former);
  EXPECT_EQ(WEXITSTATUS(status), 0);
  ::waitpid(releaser, nullptr, 0);
  for (const int fd : {locked[0], locked[1], release[0], release[1]}) ::close(fd);
}

}  // namespace
}  // namespace zz::vmpool
