// What POSIX says of files, as pjdfstest checks it, on the state file system and on a plain directory.

#include <gtest/gtest.h>

#include <filesystem>
#include <memory>

#include "tests/execution/statefs/mounted_files.hpp"
#include "tests/execution/statefs/posix_script.hpp"

namespace zz::execution::statefs::testing {
namespace {

struct Case {
  const char* name;
  const char* script;
};

const std::vector<Case> kNames = {
    {"create", R"(
      create f 0644
      type f f
      mode f 0644
      size f 0
      nlink f 1
      times . mc
      create f 0644 = EEXIST
      mkdir f 0755 = EEXIST
      open f wcx = EEXIST
      open f/x r = ENOTDIR
      create f/x 0644 = ENOTDIR
      open none r = ENOENT
      create none/x 0644 = ENOENT
      open f d = ENOTDIR
      mkdir d 0755
      open d w = EISDIR
      open d bc = EISDIR
      open d r
      open d rd
      create %255% 0644
      create %256% 0644 = ENAMETOOLONG
      open %path%f r = ENAMETOOLONG
      symlink loop loop
      open loop r = ELOOP
      symlink f way
      open way r
      open way rn = ELOOP
      open way wcx = EEXIST
      symlink none nowhere
      open nowhere r = ENOENT
      open nowhere wc
      size none 0)"},
    {"mkdir and rmdir", R"(
      mkdir d 0751
      type d d
      mode d 0751
      nlink d 2
      nlink . 3
      times d mc
      mkdir d/e 0755
      times d mc
      nlink d 3
      mkdir d 0755 = EEXIST
      mkdir none/d 0755 = ENOENT
      mkdir %256% 0755 = ENAMETOOLONG
      rmdir d = ENOTEMPTY
      rmdir d/. = EINVAL
      create f 0644
      rmdir f = ENOTDIR
      mkdir f/d 0755 = ENOTDIR
      rmdir none = ENOENT
      rmdir %256% = ENAMETOOLONG
      symlink d way
      rmdir way = ENOTDIR
      mkdir way 0755 = EEXIST
      rmdir d/e
      times d mc
      nlink d 2
      rmdir d
      nlink . 2
      symlink a b
      symlink b a
      mkdir a/x 0755 = ELOOP
      rmdir a/x = ELOOP)"},
    {"fifos, sockets and devices", R"(
      mkfifo p 0640
      type p p
      mode p 0640
      times . mc
      mkfifo p 0644 = EEXIST
      mkfifo none/p 0644 = ENOENT
      mkfifo p/p 0644 = ENOTDIR
      mkfifo %256% 0644 = ENAMETOOLONG
      open p wi = ENXIO
      mknod s s 0600
      type s s
      open s r = ENXIO
      mknod f f 0644
      type f f
      0:0| mknod c c 0600 1 3
      type c c
      device c 1 3
      0:0| mknod b b 0600 259 65537
      type b b
      device b 259 65537
      unlink c
      100:100| mknod d c 0600 1 3 = EACCES
      mkdir w 0777
      chmod w 0777
      100:100| mknod w/c c 0600 1 3 = EPERM
      100:100| mkfifo w/p 0600
      owner w/p 100:100)"},
    {"link", R"(
      create f 0644
      link f g
      times f -c
      times . mc
      same f g
      nlink f 2
      chmod g 0600
      mode f 0600
      link f g = EEXIST
      link none h = ENOENT
      link f none/h = ENOENT
      link f f/h = ENOTDIR
      link f/h h = ENOTDIR
      link f %256% = ENAMETOOLONG
      link %256% h = ENAMETOOLONG
      mkdir d 0755
      link d h = EPERM
      symlink loop loop
      link loop/x h = ELOOP
      symlink f way
      link way other
      type other l
      same way other
      unlink f
      times g -c
      nlink g 1)"},
    {"symlink", R"(
      symlink target l
      type l l
      target l target
      size l 6
      times l mc
      times . mc
      symlink x l = EEXIST
      symlink x none/l = ENOENT
      symlink x %256% = ENAMETOOLONG
      symlink %path% m = ENAMETOOLONG
      create f 0644
      symlink x f/l = ENOTDIR
      target f x = EINVAL
      chmod l 0644 = ENOENT
      unlink l
      access l = ENOENT)"},
    {"unlink", R"(
      create f 0644
      link f g
      unlink f
      times . mc
      times g -c
      unlink f = ENOENT
      unlink none/f = ENOENT
      unlink g/f = ENOTDIR
      unlink %256% = ENAMETOOLONG
      unlink %path%g = ENAMETOOLONG
      mkdir d 0755
      unlink d = EISDIR
      symlink loop loop
      unlink loop/x = ELOOP
      unlink loop
      hold g
      unlink g
      nlink g 0
      write g text
      size g 4
      times g mc
      ftruncate g 1
      size g 1
      drop g
      access g = ENOENT)"},
    {"rename", R"(
      create f 0640
      rename f g
      times g -c
      times . mc
      access f = ENOENT
      mode g 0640
      create h 0644
      rename g h
      mode h 0640
      rename none x = ENOENT
      rename h none/x = ENOENT
      rename h h/x = ENOTDIR
      rename h %256% = ENAMETOOLONG
      rename %256% x = ENAMETOOLONG
      link h same
      rename h same
      nlink h 2
      mkdir d 0755
      mkdir e 0755
      rename d h = ENOTDIR
      rename h d = EISDIR
      rename d d/x = EINVAL
      rename d e
      access d = ENOENT
      mkdir d 0755
      create e/f 0644
      rename d e = ENOTEMPTY
      rename e d
      nlink . 3
      mkdir d/sub 0755
      nlink d 3
      mkdir o 0755
      rename d/sub o/sub
      times d mc
      times o mc
      times o/sub -c
      nlink d 2
      nlink o 3
      mkdir o/sub/deep 0755
      rename o o/sub/deep/x = EINVAL
      rename o/sub/deep o = ENOTEMPTY
      symlink loop loop
      rename loop/x y = ELOOP
      rename h loop/y = ELOOP
      rename loop renamed
      target renamed loop
      rename . x = EBUSY
      mkfifo p 0644
      rename p same
      type same p)"},
};

const std::vector<Case> kInodes = {
    {"chmod", R"(
      create f 0644
      chmod f 0111
      mode f 0111
      times f -c
      chmod f 07777
      mode f 07777
      mkdir d 0755
      chmod d 01777
      mode d 01777
      chmod none 0644 = ENOENT
      chmod f/x 0644 = ENOTDIR
      chmod %256% 0644 = ENAMETOOLONG
      symlink loop loop
      chmod loop 0644 = ELOOP
      symlink f way
      chmod way 0600
      mode f 0600
      0:0| chown f 100 200
      100:200| chmod f 0640
      mode f 0640
      101:200| chmod f 0644 = EPERM
      mode f 0640
      100:100| chmod f 02755
      mode f 0755
      100:200| chmod f 02755
      mode f 02755
      100:100,200| chmod f 06755
      mode f 06755
      create g 0644
      100:100| chmod g 0666 = EPERM
      mkdir closed 0700
      create closed/f 0644
      100:100| chmod closed/f 0666 = EACCES)"},
    {"chown", R"(
      create f 0644
      0:0| chown f 100 200
      owner f 100:200
      times f -c
      0:0| chown f -1 300
      owner f 100:300
      0:0| chown f -1 -1
      owner f 100:300
      chown none 0 0 = ENOENT
      chown f/x 0 0 = ENOTDIR
      chown %256% 0 0 = ENAMETOOLONG
      symlink loop loop
      chown loop 0 0 = ELOOP
      symlink f way
      0:0| lchown way 7 8
      owner way 7:8
      owner f 100:300
      0:0| chown way 100 301
      owner f 100:301
      100:100,300| chown f -1 300
      owner f 100:300
      times f -c
      100:100,300| chown f 100 100
      owner f 100:100
      100:100| chown f 101 -1 = EPERM
      100:100| chown f -1 300 = EPERM
      101:100| chown f -1 100 = EPERM
      0:0| chmod f 06755
      0:0| chown f 100 200
      mode f 0755
      0:0| chmod f 06755
      100:100,300,200| chown f -1 300
      mode f 0755
      mkdir d 0755
      chmod d 06755
      0:0| chown d 100 200
      mode d 06755)"},
    {"set-id bits and writing", R"(
      create f 0777
      0:0| chown f 100 100
      0:0| chmod f 06777
      101:101| append f x
      mode f 0777
      times f mc
      0:0| chmod f 06777
      101:101| truncate f 1
      mode f 0777
      0:0| chmod f 06777
      101:101| ftruncate f 7
      mode f 0777
      0:0| chmod f 06777
      101:101| open f wt
      mode f 0777
      0:0| chmod f 04777
      101:101| fallocate f 0 100
      mode f 0777
      0:0| chmod f 06777
      0:0| append f x
      mode f 06777)"},
    {"groups that directories pass on", R"(
      mkdir g 0777
      0:0| chown g 0 300
      0:0| chmod g 02777
      100:100| create g/f 0644
      owner g/f 100:300
      100:100| mkdir g/d 0755
      owner g/d 100:300
      mode g/d 02755
      100:100| mkfifo g/p 0644
      owner g/p 100:300
      100:100| symlink x g/l
      owner g/l 100:300
      100:100| create g/s 02755
      mode g/s 0755
      100:100,300| create g/t 02755
      mode g/t 02755
      0:0| chmod g 0777
      100:100| create g/own 0644
      owner g/own 100:100)"},
    {"truncate", R"(
      create f 0644
      write f 0123456789
      size f 10
      times f mc
      truncate f 5
      size f 5
      times f mc
      truncate f 123456
      size f 123456
      times f mc
      ftruncate f 20
      size f 20
      times f mc
      truncate f -1 = EINVAL
      hold f
      ftruncate f -1 = EINVAL
      drop f
      open f wt
      size f 0
      times f mc
      truncate none 0 = ENOENT
      truncate f/x 0 = ENOTDIR
      truncate %256% 0 = ENAMETOOLONG
      mkdir d 0755
      truncate d 0 = EISDIR
      symlink loop loop
      truncate loop 0 = ELOOP
      mkfifo p 0644
      truncate p 0 = EINVAL
      truncate f 4611686018427387904 = EFBIG
      0:0| chown f 100 100
      101:101| truncate f 1 = EACCES
      100:100| truncate f 1)"},
    {"fallocate", R"(
      create f 0644
      fallocate f 0 1000
      size f 1000
      times f mc
      fallocate f 500 100
      size f 1000
      fallocate f 900 40000
      size f 40900
      fallocate f 0 0 = EINVAL
      fallocate f -1 10 = EINVAL
      fallocate f 10 -1 = EINVAL
      mkdir d 0755
      fallocate d 0 10 = EISDIR)"},
    {"utimensat", R"(
      create f 0644
      utimens f 100 200
      atime f 100
      mtime f 200
      times f -c
      utimens f omit 300
      atime f 100
      mtime f 300
      utimens f 400 omit
      atime f 400
      mtime f 300
      utimens f omit omit
      times f --
      utimens f now now
      times f mc
      utimens f -5 -6
      mtime f -6
      utimens none now now = ENOENT
      utimens f/x now now = ENOTDIR
      mkdir d 0755
      utimens d 7 8
      mtime d 8
      0:0| chown f 100 100
      0:0| chmod f 0664
      101:101| utimens f now now = EACCES
      101:101| utimens f 1 2 = EPERM
      101:101| utimens f omit omit
      102:100| utimens f now now
      102:100| utimens f 1 2 = EPERM
      102:100| utimens f now omit = EPERM
      100:101| utimens f 1 2
      mtime f 2)"},
};

const std::vector<Case> kPermissions = {
    {"each bit counts for whom it is", R"(
      create f 0400
      0:0| chown f 100 200
      100:100| open f r
      100:100| open f w = EACCES
      101:200| open f r = EACCES
      0:0| chmod f 0200
      100:100| open f r = EACCES
      100:100| open f w
      0:0| chmod f 0040
      100:200| open f r = EACCES
      101:200| open f r
      101:101,200| open f r
      101:101| open f r = EACCES
      0:0| chmod f 0020
      101:200| open f w
      101:200| open f r = EACCES
      0:0| chmod f 0006
      101:101| open f b
      101:200| open f r = EACCES
      100:100| open f r = EACCES
      0:0| open f b)"},
    {"directories are searched, read and written", R"(
      mkdir d 0755
      create d/f 0666
      chmod d/f 0666
      0:0| chown d 100 100
      0:0| chmod d 0711
      101:101| open d/f r
      101:101| open d r = EACCES
      101:101| create d/g 0644 = EACCES
      101:101| unlink d/f = EACCES
      101:101| rename d/f d/g = EACCES
      101:101| mkdir d/x 0755 = EACCES
      101:101| mkfifo d/x 0644 = EACCES
      101:101| symlink x d/x = EACCES
      101:101| link d/f d/x = EACCES
      0:0| chmod d 0744
      101:101| open d r
      101:101| open d/f r = EACCES
      101:101| access d/f = EACCES
      101:101| unlink d/f = EACCES
      0:0| chmod d 0755
      0:0| mkdir d/sub 0755
      101:101| rmdir d/sub = EACCES
      100:100| rmdir d/sub
      0:0| chmod d 0333
      101:101| open d r = EACCES
      101:101| create d/new 0644
      101:101| unlink d/new)"},
    {"sticky directories", R"(
      mkdir t 0777
      0:0| chmod t 01777
      100:100| create t/f 0666
      100:100| mkdir t/d 0777
      101:101| unlink t/f = EPERM
      101:101| rmdir t/d = EPERM
      101:101| rename t/f t/g = EPERM
      101:101| create t/mine 0644
      101:101| rename t/mine t/f = EPERM
      100:100| rename t/f t/mine = EPERM
      100:100| rename t/f t/g
      100:100| unlink t/g
      100:100| rmdir t/d
      101:101| unlink t/mine
      100:100| create t/f 0644
      0:0| chown t 102 102
      102:102| unlink t/f)"},
    {"a directory that moves to another parent must be writable", R"(
      mkdir a 0777
      mkdir b 0777
      chmod a 0777
      chmod b 0777
      0:0| mkdir a/d 0755
      100:100| rename a/d b/d = EACCES
      100:100| rename a/d a/e
      0:0| chmod a/e 0777
      100:100| rename a/e b/e)"},
};

void run(const std::vector<Case>& cases, const std::string& below, const std::string& kind,
         const std::function<ScriptClock()>& clock) {
  ::umask(0);
  const std::filesystem::path before = std::filesystem::current_path();
  for (std::size_t i = 0; i < cases.size(); ++i) {
    const std::string directory = below + "/" + std::to_string(i);
    ASSERT_EQ(::mkdir(directory.c_str(), 0755), 0);
    std::filesystem::current_path(directory);
    PosixScript(clock()).run(cases[i].script, kind + ", " + cases[i].name);
    std::filesystem::current_path(before);
  }
}

class FusePosix : public ::testing::TestWithParam<const std::vector<Case>*> {};

TEST_P(FusePosix, HoldsOnAPlainDirectory) {
  execution::testing::TempDir dir;
  ASSERT_EQ(::chmod(dir.path.c_str(), 0755), 0);
  run(*GetParam(), dir.path.string(), "plain directory", machine_clock);
}

TEST_P(FusePosix, HoldsOnTheStateFileSystemInAgreedTime) {
  Mounted mounted;
  SKIP_WITHOUT_FUSE(mounted);
  ASSERT_EQ(::chmod(mounted.dir.path.c_str(), 0755), 0);
  std::int64_t seconds = 1'700'000'000;
  run(*GetParam(), mounted.dir.path.string(), "state file system", [&] {
    return ScriptClock{[&] { mounted.set_time(++seconds * 1'000'000); },
                       [&](const timespec& time) { return time.tv_sec == seconds && time.tv_nsec == 0; }, false};
  });
  const std::lock_guard lock(mounted.head);
  EXPECT_EQ(mounted.files->fs.counters().damaged, 0u);
}

std::string name_of(const ::testing::TestParamInfo<const std::vector<Case>*>& table) {
  if (table.param == &kNames) return "Names";
  return table.param == &kInodes ? "Inodes" : "Permissions";
}
INSTANTIATE_TEST_SUITE_P(Tables, FusePosix, ::testing::Values(&kNames, &kInodes, &kPermissions), name_of);

}  // namespace
}  // namespace zz::execution::statefs::testing
