#include "execution/statefs/fuse_operations.hpp"

#include <fcntl.h>
#include <linux/falloc.h>
#include <sys/stat.h>
#include <sys/statvfs.h>
#include <sys/xattr.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstring>
#include <string>

namespace zz::execution::statefs {
namespace {

constexpr double kForever = 365.0 * 86'400;  // seconds; the kernel alone changes what it was told
constexpr std::uint32_t kBlocksForStatfs = 4'096;
constexpr unsigned kWritesOnTheWay = 1u << 15;  // so that none waits in the kernel behind a later request (settle)

Served& served(fuse_req_t request) { return *static_cast<Served*>(fuse_req_userdata(request)); }

timespec to_timespec(const Time& time) { return {time.seconds, static_cast<long>(time.nanoseconds)}; }
Time from_timespec(const timespec& time) { return {time.tv_sec, static_cast<std::uint32_t>(time.tv_nsec)}; }

struct stat to_stat(const Attributes& attributes) {
  const Record& record = attributes.record;
  struct stat out {};
  out.st_ino = attributes.inode.value;
  out.st_mode = record.mode;
  out.st_nlink = record.links;
  out.st_uid = record.uid;
  out.st_gid = record.gid;
  out.st_rdev = record.device;
  out.st_size = static_cast<off_t>(record.size);
  out.st_blksize = kBlockBytes;
  out.st_blocks = static_cast<blkcnt_t>(attributes.sectors());
  out.st_atim = to_timespec(record.accessed);
  out.st_mtim = to_timespec(record.modified);
  out.st_ctim = to_timespec(record.changed);
  return out;
}

fuse_entry_param to_entry(const Attributes& attributes) {
  fuse_entry_param out{};
  out.ino = attributes.inode.value;
  out.generation = 1;  // an inode is never used again
  out.attr = to_stat(attributes);
  out.attr_timeout = out.entry_timeout = kForever;
  return out;
}

// Runs `operation` until nothing it needs is absent, then `reply` with its outcome; an error is replied here.
template <class Operation, class Reply>
void serve(fuse_req_t request, Operation operation, Reply reply) {
  auto out = operation(served(request).files);
  if (!out.missing.empty()) {
    served(request).park(
        request, [=] { serve(request, operation, reply); }, out.missing);
  } else if (out.error != 0) {
    fuse_reply_err(request, out.error);
  } else {
    reply(out);
  }
}
template <class Operation>
void serve(fuse_req_t request, Operation operation) {
  serve(request, operation, [request](const auto&) { fuse_reply_err(request, 0); });
}
auto entry_reply(fuse_req_t request) {
  return [request](const AttributesOutcome& out) {
    const fuse_entry_param entry = to_entry(out.attributes);
    fuse_reply_entry(request, &entry);
  };
}
auto attributes_reply(fuse_req_t request) {
  return [request](const AttributesOutcome& out) {
    const struct stat stat = to_stat(out.attributes);
    fuse_reply_attr(request, &stat, kForever);
  };
}
Owner caller(fuse_req_t request) {
  const fuse_ctx* const context = fuse_req_ctx(request);
  return {context->uid, context->gid};
}

void init(void*, fuse_conn_info* connection) {
  // Of the kernel's own clock and caches: no write-back (its mtime would be shown), no dropping of pages because the
  // times that we report changed, and it clears set-uid bits itself.
  connection->want &= ~static_cast<unsigned>(FUSE_CAP_WRITEBACK_CACHE | FUSE_CAP_AUTO_INVAL_DATA |
                                             FUSE_CAP_HANDLE_KILLPRIV | FUSE_CAP_ATOMIC_O_TRUNC);
  connection->want |= connection->capable & static_cast<unsigned>(FUSE_CAP_CACHE_SYMLINKS);
  connection->max_background = kWritesOnTheWay;
  connection->time_gran = 1;
}

// ---- names

void lookup(fuse_req_t request, fuse_ino_t directory, const char* name) {
  const auto look = [directory, name = std::string(name)](FileSystem& files) {
    AttributesOutcome out = files.lookup(Inode{directory}, name);
    if (out.error == ENOENT) {
      out.error = 0;  // the kernel keeps that too: inode 0
      out.attributes = {};
    }
    return out;
  };
  serve(request, look, entry_reply(request));
}

void make(fuse_req_t request, fuse_ino_t directory, const char* name, const NewInode& what, std::string target = {}) {
  const auto operation = [=, name = std::string(name)](FileSystem& files) {
    NewInode inode = what;
    inode.target = target;
    return files.make(Inode{directory}, name, inode);
  };
  serve(request, operation, entry_reply(request));
}
void mknod(fuse_req_t request, fuse_ino_t directory, const char* name, mode_t mode, dev_t device) {
  make(request, directory, name, {mode, caller(request), device, {}});
}
void mkdir(fuse_req_t request, fuse_ino_t directory, const char* name, mode_t mode) {
  make(request, directory, name, {S_IFDIR | (mode & 07777), caller(request), 0, {}});
}
void symlink(fuse_req_t request, const char* target, fuse_ino_t directory, const char* name) {
  make(request, directory, name, {S_IFLNK | 0777, caller(request), 0, {}}, target);
}
void link(fuse_req_t request, fuse_ino_t inode, fuse_ino_t directory, const char* name) {
  serve(
      request,
      [=, name = std::string(name)](FileSystem& files) { return files.link(Inode{inode}, Inode{directory}, name); },
      entry_reply(request));
}
void unlink(fuse_req_t request, fuse_ino_t directory, const char* name) {
  serve(request, [=, name = std::string(name)](FileSystem& files) { return files.unlink(Inode{directory}, name); });
}
void rmdir(fuse_req_t request, fuse_ino_t directory, const char* name) {
  serve(request, [=, name = std::string(name)](FileSystem& files) { return files.rmdir(Inode{directory}, name); });
}
void rename(fuse_req_t request, fuse_ino_t from, const char* name, fuse_ino_t to, const char* new_name,
            unsigned flags) {
  RenameMode mode = RenameMode::kReplace;
  if (flags == RENAME_NOREPLACE) mode = RenameMode::kNoReplace;
  if (flags == RENAME_EXCHANGE) mode = RenameMode::kExchange;
  if (flags != 0 && mode == RenameMode::kReplace) {
    fuse_reply_err(request, EINVAL);
    return;
  }
  serve(request, [=, name = std::string(name), new_name = std::string(new_name)](FileSystem& files) {
    return files.rename(Inode{from}, name, Inode{to}, new_name, mode);
  });
}

// ---- open files

bool is_for_writing(const fuse_file_info* file) { return (file->flags & O_ACCMODE) != O_RDONLY; }

void opened(fuse_req_t request, fuse_ino_t inode, const fuse_file_info* file) {
  served(request).files.hold(Inode{inode});
  served(request).open_for_writing += is_for_writing(file) ? 1 : 0;
}
void closed(fuse_req_t request, fuse_ino_t inode, const fuse_file_info* file) {
  served(request).files.release(Inode{inode});
  served(request).open_for_writing -= is_for_writing(file) ? 1 : 0;
}

void open(fuse_req_t request, fuse_ino_t inode, fuse_file_info* file) {
  file->keep_cache = 1;
  opened(request, inode, file);
  if (fuse_reply_open(request, file) != 0) closed(request, inode, file);
}
void release(fuse_req_t request, fuse_ino_t inode, fuse_file_info* file) {
  closed(request, inode, file);
  fuse_reply_err(request, 0);
}
void create(fuse_req_t request, fuse_ino_t directory, const char* name, mode_t mode, fuse_file_info* file) {
  const NewInode what{S_IFREG | (mode & 07777), caller(request), 0, {}};
  serve(
      request, [=, name = std::string(name)](FileSystem& files) { return files.make(Inode{directory}, name, what); },
      [request, info = *file](const AttributesOutcome& out) {
        fuse_file_info reply = info;
        reply.keep_cache = 1;
        const fuse_entry_param entry = to_entry(out.attributes);
        opened(request, entry.ino, &reply);
        if (fuse_reply_create(request, &entry, &reply) != 0) closed(request, entry.ino, &reply);
      });
}
// The kernel asks once (Linux 5.1), opens and closes directories alone from then on, and keeps their listings.
void opendir(fuse_req_t request, fuse_ino_t, fuse_file_info*) { fuse_reply_err(request, ENOSYS); }

void read(fuse_req_t request, fuse_ino_t inode, std::size_t size, off_t offset, fuse_file_info*) {
  serve(
      request, [=](FileSystem& files) { return files.read(Inode{inode}, static_cast<std::uint64_t>(offset), size); },
      [request](const ReadOutcome& out) {
        std::vector<iovec> pieces;
        pieces.reserve(out.pieces.size());
        for (const SharedBytes& piece : out.pieces) {
          pieces.push_back({const_cast<std::uint8_t*>(piece.data()), piece.size()});
        }
        fuse_reply_iov(request, pieces.data(), static_cast<int>(pieces.size()));
      });
}

void write(fuse_req_t request, fuse_ino_t inode, const char* data, std::size_t size, off_t offset,
           fuse_file_info* file) {
  served(request).written_back += file->writepage != 0 ? 1 : 0;
  const auto at = static_cast<std::uint64_t>(offset);
  const ByteView view = as_bytes({data, size});
  const Outcome out = served(request).files.write(Inode{inode}, at, view);
  if (out.missing.empty()) {
    out.error != 0 ? fuse_reply_err(request, out.error) : fuse_reply_write(request, size);
    return;
  }
  const SharedBytes keep = SharedBytes::copy(view);  // the buffer is libfuse's
  const auto operation = [=](FileSystem& files) { return files.write(Inode{inode}, at, keep.view()); };
  served(request).park(
      request, [=] { serve(request, operation, [=](const Outcome&) { fuse_reply_write(request, size); }); },
      out.missing);
}

void readdir(fuse_req_t request, fuse_ino_t inode, std::size_t size, off_t offset, fuse_file_info*) {
  serve(
      request,
      [=](FileSystem& files) { return files.list(Inode{inode}, static_cast<std::uint64_t>(offset), size / 48); },
      [=](const ListOutcome& out) {
        std::string buffer(size, '\0');
        std::size_t used = 0;
        for (const ListedEntry& entry : out.entries) {
          struct stat stat {};
          stat.st_ino = entry.inode.value;
          stat.st_mode = static_cast<mode_t>(entry.type) << 12;
          const std::size_t wanted = fuse_add_direntry(request, buffer.data() + used, size - used, entry.name.c_str(),
                                                       &stat, static_cast<off_t>(entry.offset));
          if (wanted > size - used) break;
          used += wanted;
        }
        fuse_reply_buf(request, buffer.data(), used);
      });
}

void fallocate(fuse_req_t request, fuse_ino_t inode, int mode, off_t offset, off_t length, fuse_file_info*) {
  AllocateMode what = AllocateMode::kGrow;
  switch (mode) {
    case 0:
      break;
    case FALLOC_FL_KEEP_SIZE:  // room is not set aside: ENOSPC comes with the write
      fuse_reply_err(request, 0);
      return;
    case FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE:
    case FALLOC_FL_ZERO_RANGE | FALLOC_FL_KEEP_SIZE:
      what = AllocateMode::kZero;
      break;
    case FALLOC_FL_ZERO_RANGE:
      what = AllocateMode::kZeroGrow;
      break;
    default:
      fuse_reply_err(request, EOPNOTSUPP);
      return;
  }
  serve(request, [=](FileSystem& files) {
    return files.allocate(Inode{inode}, static_cast<std::uint64_t>(offset), static_cast<std::uint64_t>(length), what);
  });
}

void lseek(fuse_req_t request, fuse_ino_t inode, off_t offset, int whence, fuse_file_info*) {
  if (whence != SEEK_DATA && whence != SEEK_HOLE) {
    fuse_reply_err(request, EINVAL);
    return;
  }
  const SeekTo to = whence == SEEK_DATA ? SeekTo::kData : SeekTo::kHole;
  serve(
      request, [=](FileSystem& files) { return files.seek(Inode{inode}, static_cast<std::uint64_t>(offset), to); },
      [request](const OffsetOutcome& out) { fuse_reply_lseek(request, static_cast<off_t>(out.offset)); });
}

// ---- inodes

void getattr(fuse_req_t request, fuse_ino_t inode, fuse_file_info*) {
  serve(
      request, [=](FileSystem& files) { return files.stat(Inode{inode}); }, attributes_reply(request));
}

void setattr(fuse_req_t request, fuse_ino_t inode, struct stat* to, int what, fuse_file_info*) {
  Change change;
  if ((what & FUSE_SET_ATTR_MODE) != 0) change.permissions = to->st_mode & 07777;
  if ((what & FUSE_SET_ATTR_UID) != 0) change.uid = to->st_uid;
  if ((what & FUSE_SET_ATTR_GID) != 0) change.gid = to->st_gid;
  if ((what & FUSE_SET_ATTR_SIZE) != 0) change.size = static_cast<std::uint64_t>(to->st_size);
  // Also where the service names one: it is its own clock's as a rule (nginx after a COPY, cp -p, touch -r).
  change.accessed_now = (what & (FUSE_SET_ATTR_ATIME | FUSE_SET_ATTR_ATIME_NOW)) != 0;
  if ((what & FUSE_SET_ATTR_MTIME_NOW) != 0) {
    change.modified_now = true;
  } else if ((what & FUSE_SET_ATTR_MTIME) != 0) {
    change.modified = from_timespec(to->st_mtim);
  }
  serve(
      request, [=](FileSystem& files) { return files.change(Inode{inode}, change); }, attributes_reply(request));
}

void readlink(fuse_req_t request, fuse_ino_t inode) {
  serve(
      request, [=](FileSystem& files) { return files.target(Inode{inode}); },
      [request](const BytesOutcome& out) { fuse_reply_readlink(request, std::string(out.bytes.text()).c_str()); });
}

// A size of zero asks how many bytes there are.
void reply_sized(fuse_req_t request, std::string_view bytes, std::size_t size) {
  if (size == 0) {
    fuse_reply_xattr(request, bytes.size());
  } else if (bytes.size() > size) {
    fuse_reply_err(request, ERANGE);
  } else {
    fuse_reply_buf(request, bytes.data(), bytes.size());
  }
}

// Access lists and their kin would have to be obeyed, not only kept.
bool is_for_us(const char* name) { return std::strncmp(name, "system.", 7) != 0; }

void getxattr(fuse_req_t request, fuse_ino_t inode, const char* name, std::size_t size) {
  if (!is_for_us(name)) {
    fuse_reply_err(request, EOPNOTSUPP);
    return;
  }
  serve(
      request, [=, name = std::string(name)](FileSystem& files) { return files.attribute(Inode{inode}, name); },
      [=](const BytesOutcome& out) { reply_sized(request, out.bytes.text(), size); });
}
void listxattr(fuse_req_t request, fuse_ino_t inode, std::size_t size) {
  serve(
      request, [=](FileSystem& files) { return files.attribute_names(Inode{inode}); },
      [=](const NamesOutcome& out) {
        std::string all;
        for (const std::string& name : out.names) all.append(name).push_back('\0');
        reply_sized(request, all, size);
      });
}
void setxattr(fuse_req_t request, fuse_ino_t inode, const char* name, const char* value, std::size_t size, int flags) {
  if (!is_for_us(name)) {
    fuse_reply_err(request, EOPNOTSUPP);
    return;
  }
  const AttributeMode mode = (flags & XATTR_CREATE) != 0    ? AttributeMode::kCreate
                             : (flags & XATTR_REPLACE) != 0 ? AttributeMode::kReplace
                                                            : AttributeMode::kAny;
  serve(request, [=, name = std::string(name), value = std::string(value, size)](FileSystem& files) {
    return files.set_attribute(Inode{inode}, name, as_bytes(value), mode);
  });
}
void removexattr(fuse_req_t request, fuse_ino_t inode, const char* name) {
  serve(request,
        [=, name = std::string(name)](FileSystem& files) { return files.remove_attribute(Inode{inode}, name); });
}

void statfs(fuse_req_t request, fuse_ino_t) {
  const Usage usage = served(request).files.usage();
  struct statvfs out {};
  out.f_bsize = out.f_frsize = kBlocksForStatfs;
  out.f_blocks = usage.bytes_max / kBlocksForStatfs;
  out.f_bfree = out.f_bavail = (usage.bytes_max - std::min(usage.bytes, usage.bytes_max)) / kBlocksForStatfs;
  out.f_files = usage.objects_max;
  out.f_ffree = out.f_favail = usage.objects_max - std::min(usage.objects, usage.objects_max);
  out.f_namemax = kNameBytesMax;
  fuse_reply_statfs(request, &out);
}

}  // namespace

// Not here, so that the kernel does them alone: locks, access checks, and flush and fsync once it has written what its
// mappings hold.
const fuse_lowlevel_ops& fuse_operations() {
  static const fuse_lowlevel_ops operations = [] {
    fuse_lowlevel_ops out{};
    out.init = init;
    out.lookup = lookup;
    out.mknod = mknod;
    out.mkdir = mkdir;
    out.symlink = symlink;
    out.link = link;
    out.unlink = unlink;
    out.rmdir = rmdir;
    out.rename = rename;
    out.open = open;
    out.release = release;
    out.create = create;
    out.opendir = opendir;
    out.read = read;
    out.write = write;
    out.readdir = readdir;
    out.fallocate = fallocate;
    out.lseek = lseek;
    out.getattr = getattr;
    out.setattr = setattr;
    out.readlink = readlink;
    out.getxattr = getxattr;
    out.listxattr = listxattr;
    out.setxattr = setxattr;
    out.removexattr = removexattr;
    out.statfs = statfs;
    return out;
  }();
  return operations;
}

}  // namespace zz::execution::statefs
