// power_cut: a library for LD_PRELOAD that makes a kill -9 a power cut for the files under $ZZ_POWER_CUT_DIR.
//
// What a process writes to such a file is held in its memory until fsync or fdatasync of a descriptor of it; only then
// is it really written. A process that is killed takes with it what it did not sync. Its own reads through read()
// and pread() see what it wrote; a process that ends by itself loses nothing, as with a real kernel.
//
// Harsher than a kernel, which writes something back now and then: here everything that was not synced is lost, and
// sync_file_range() makes nothing durable, as the manual says. Milder: names (creat, rename, unlink) are durable at
// once; so is the truncation by O_TRUNC. Not seen: memory maps, stdio's own writes, copies of descriptors, sizes by
// stat().
//
// Any thread: one lock. Memory: what is not synced.

#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <pthread.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/uio.h>
#include <unistd.h>

enum { kFilesMax = 1 << 16 };

// One change that the disk has not seen: bytes at `at`, or (bytes null) a truncation to `at`.
struct change {
  struct change* next;
  off_t at;
  size_t size;
  size_t room;
  char* bytes;
};

// A file with changes. It keeps a descriptor, so that its inode is not given to another file.
struct file {
  struct file* next;
  dev_t device;
  ino_t inode;
  int keep;    // -1 until something is held
  off_t size;  // as the process sees it
  struct change* first;
  struct change* last;
  unsigned users;  // descriptors
};

static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
static struct file* files;
static struct file* by_fd[kFilesMax];

#define REAL(result, name, ...)              \
  static result (*real_##name)(__VA_ARGS__); \
  if (!real_##name) *(void**)&real_##name = dlsym(RTLD_NEXT, #name)

static ssize_t really_pwrite(int fd, const void* bytes, size_t size, off_t at) {
  REAL(ssize_t, pwrite64, int, const void*, size_t, off_t);
  return real_pwrite64(fd, bytes, size, at);
}

static int really_truncate(int fd, off_t size) {
  REAL(int, ftruncate64, int, off_t);
  return real_ftruncate64(fd, size);
}

static int really_close(int fd) {
  REAL(int, close, int);
  return real_close(fd);
}

static struct file* file_of(int fd) { return fd >= 0 && fd < kFilesMax ? by_fd[fd] : NULL; }

// ---- under the lock

static void drop_first(struct file* file) {
  struct change* change = file->first;
  file->first = change->next;
  if (!file->first) file->last = NULL;
  free(change->bytes);
  free(change);
}

static void release(struct file* file) {
  while (file->first) drop_first(file);
  if (file->keep >= 0) really_close(file->keep);
  struct file** at = &files;
  while (*at != file) at = &(*at)->next;
  *at = file->next;
  free(file);
}

static void sweep(void) {
  for (struct file* file = files; file;) {
    struct file* next = file->next;
    struct stat stat;
    if (file->users == 0 && (!file->first || (fstat(file->keep, &stat) == 0 && stat.st_nlink == 0))) release(file);
    file = next;
  }
}

static struct change* add_change(struct file* file, int fd, off_t at) {
  if (file->keep < 0) file->keep = fcntl(fd, F_DUPFD_CLOEXEC, 0);
  struct change* change = file->keep < 0 ? NULL : calloc(1, sizeof *change);
  if (!change) return NULL;
  change->at = at;
  if (file->last) {
    file->last->next = change;
  } else {
    file->first = change;
  }
  file->last = change;
  return change;
}

static ssize_t hold(struct file* file, int fd, const void* bytes, size_t size, off_t at) {
  struct change* change = file->last;
  if (!change || !change->bytes || change->at + (off_t)change->size != at) change = add_change(file, fd, at);
  if (!change || change->size + size > change->room) {
    const size_t room = change ? 2 * (change->size + size) : 0;
    char* grown = change ? realloc(change->bytes, room) : NULL;
    if (!grown) {
      errno = ENOSPC;
      return -1;
    }
    change->bytes = grown;
    change->room = room;
  }
  memcpy(change->bytes + change->size, bytes, size);
  change->size += size;
  if (at + (off_t)size > file->size) file->size = at + (off_t)size;
  return (ssize_t)size;
}

static ssize_t hold_here(struct file* file, int fd, const void* bytes, size_t size) {
  const off_t at = fcntl(fd, F_GETFL) & O_APPEND ? file->size : lseek(fd, 0, SEEK_CUR);
  const ssize_t held = size == 0 ? 0 : hold(file, fd, bytes, size, at);
  if (held > 0) lseek(fd, at + held, SEEK_SET);
  return held;
}

// Writes what is held; 0, or -1 with errno.
static int let_go(struct file* file) {
  while (file->first) {
    struct change* change = file->first;
    if (!change->bytes) {
      if (really_truncate(file->keep, change->at) != 0) return -1;
    }
    size_t done = 0;
    while (done < change->size) {
      const ssize_t written =
          really_pwrite(file->keep, change->bytes + done, change->size - done, change->at + (off_t)done);
      if (written < 0 && errno != EINTR) return -1;
      if (written > 0) done += (size_t)written;
    }
    drop_first(file);
  }
  return 0;
}

// Puts what is held over what was read from `at` on; how much there is to read now.
static ssize_t overlay(const struct file* file, char* bytes, size_t size, off_t at, ssize_t got) {
  if (!file->first) return got;
  memset(bytes + got, 0, size - (size_t)got);
  for (const struct change* change = file->first; change; change = change->next) {
    const off_t end = change->bytes ? change->at + (off_t)change->size : LLONG_MAX;
    const off_t from = change->at > at ? change->at : at;
    const off_t to = end < at + (off_t)size ? end : at + (off_t)size;
    if (from >= to) continue;
    if (change->bytes) {
      memcpy(bytes + (from - at), change->bytes + (from - change->at), (size_t)(to - from));
    } else {
      memset(bytes + (from - at), 0, (size_t)(to - from));
    }
  }
  const off_t left = file->size > at ? file->size - at : 0;
  return (size_t)left < size ? (ssize_t)left : (ssize_t)size;
}

// ---- descriptors come and go

static int is_ours(int fd) {
  const char* directory = getenv("ZZ_POWER_CUT_DIR");
  if (!directory || !*directory) return 0;
  char link[64];
  char path[PATH_MAX];
  snprintf(link, sizeof link, "/proc/self/fd/%d", fd);
  const ssize_t size = readlink(link, path, sizeof path - 1);
  const size_t length = strlen(directory);
  return size > (ssize_t)length && memcmp(path, directory, length) == 0 && path[length] == '/';
}

static int opened(int fd, int flags) {
  struct stat stat;
  const int error = errno;
  if (fd < 0 || fd >= kFilesMax || (flags & (O_PATH | O_SYNC | O_DSYNC)) || !is_ours(fd) || fstat(fd, &stat) != 0 ||
      !S_ISREG(stat.st_mode)) {
    errno = error;
    return fd;
  }
  if (flags & O_DIRECT) fcntl(fd, F_SETFL, flags & ~O_DIRECT);  // what is held is not aligned
  pthread_mutex_lock(&lock);
  sweep();
  struct file* file = files;
  while (file && (file->device != stat.st_dev || file->inode != stat.st_ino)) file = file->next;
  if (!file && (file = calloc(1, sizeof *file))) {
    *file = (struct file){.next = files, .device = stat.st_dev, .inode = stat.st_ino, .keep = -1, .size = stat.st_size};
    files = file;
  }
  if (file && (flags & O_TRUNC)) {
    while (file->first) drop_first(file);
    file->size = 0;
  }
  if (file) ++file->users;
  by_fd[fd] = file;
  pthread_mutex_unlock(&lock);
  errno = error;
  return fd;
}

static mode_t mode_argument(int flags, va_list arguments) {
  return flags & (O_CREAT | O_TMPFILE) ? va_arg(arguments, mode_t) : 0;
}

#define OPEN(name)                                        \
  int name(const char* path, int flags, ...) {            \
    REAL(int, name, const char*, int, ...);               \
    va_list arguments;                                    \
    va_start(arguments, flags);                           \
    const mode_t mode = mode_argument(flags, arguments);  \
    va_end(arguments);                                    \
    return opened(real_##name(path, flags, mode), flags); \
  }
#define OPENAT(name)                                          \
  int name(int at, const char* path, int flags, ...) {        \
    REAL(int, name, int, const char*, int, ...);              \
    va_list arguments;                                        \
    va_start(arguments, flags);                               \
    const mode_t mode = mode_argument(flags, arguments);      \
    va_end(arguments);                                        \
    return opened(real_##name(at, path, flags, mode), flags); \
  }
OPEN(open)
OPEN(open64)
OPENAT(openat)
OPENAT(openat64)

int close(int fd) {
  if (file_of(fd)) {
    pthread_mutex_lock(&lock);
    struct file* file = by_fd[fd];
    by_fd[fd] = NULL;
    if (file && --file->users == 0 && !file->first) release(file);
    pthread_mutex_unlock(&lock);
  }
  return really_close(fd);
}

// ---- writing

ssize_t write(int fd, const void* bytes, size_t size) {
  REAL(ssize_t, write, int, const void*, size_t);
  struct file* file = file_of(fd);
  if (!file) return real_write(fd, bytes, size);
  pthread_mutex_lock(&lock);
  const ssize_t held = hold_here(file, fd, bytes, size);
  pthread_mutex_unlock(&lock);
  return held;
}

ssize_t writev(int fd, const struct iovec* parts, int count) {
  REAL(ssize_t, writev, int, const struct iovec*, int);
  struct file* file = file_of(fd);
  if (!file) return real_writev(fd, parts, count);
  pthread_mutex_lock(&lock);
  ssize_t total = 0;
  for (int i = 0; i < count && total >= 0; ++i) {
    const ssize_t held = hold_here(file, fd, parts[i].iov_base, parts[i].iov_len);
    total = held < 0 ? -1 : total + held;
  }
  pthread_mutex_unlock(&lock);
  return total;
}

ssize_t pwrite64(int fd, const void* bytes, size_t size, off_t at) {
  struct file* file = file_of(fd);
  if (!file) return really_pwrite(fd, bytes, size, at);
  pthread_mutex_lock(&lock);
  const ssize_t held = size == 0 ? 0 : hold(file, fd, bytes, size, at);
  pthread_mutex_unlock(&lock);
  return held;
}
ssize_t pwrite(int fd, const void* bytes, size_t size, off_t at) { return pwrite64(fd, bytes, size, at); }

int ftruncate64(int fd, off_t size) {
  struct file* file = file_of(fd);
  if (!file) return really_truncate(fd, size);
  pthread_mutex_lock(&lock);
  int done = 0;
  if (size != file->size) done = add_change(file, fd, size) ? 0 : -1;
  if (done == 0) file->size = size;
  pthread_mutex_unlock(&lock);
  return done;
}
int ftruncate(int fd, off_t size) { return ftruncate64(fd, size); }

// ---- syncing

static int synced(int fd, int (*sync)(int)) {
  int done = 0;
  if (file_of(fd)) {
    pthread_mutex_lock(&lock);
    if (by_fd[fd]) done = let_go(by_fd[fd]);
    pthread_mutex_unlock(&lock);
  }
  return done == 0 ? sync(fd) : done;
}

int fsync(int fd) {
  REAL(int, fsync, int);
  return synced(fd, real_fsync);
}

int fdatasync(int fd) {
  REAL(int, fdatasync, int);
  return synced(fd, real_fdatasync);
}

int sync_file_range(int fd, off_t at, off_t size, unsigned flags) {
  REAL(int, sync_file_range, int, off_t, off_t, unsigned);
  return file_of(fd) ? 0 : real_sync_file_range(fd, at, size, flags);
}

// ---- reading

ssize_t pread64(int fd, void* bytes, size_t size, off_t at) {
  REAL(ssize_t, pread64, int, void*, size_t, off_t);
  ssize_t got = real_pread64(fd, bytes, size, at);
  struct file* file = file_of(fd);
  if (!file || got < 0) return got;
  pthread_mutex_lock(&lock);
  got = overlay(file, bytes, size, at, got);
  pthread_mutex_unlock(&lock);
  return got;
}
ssize_t pread(int fd, void* bytes, size_t size, off_t at) { return pread64(fd, bytes, size, at); }

ssize_t read(int fd, void* bytes, size_t size) {
  REAL(ssize_t, read, int, void*, size_t);
  if (!file_of(fd)) return real_read(fd, bytes, size);
  const off_t at = lseek(fd, 0, SEEK_CUR);
  const ssize_t got = pread64(fd, bytes, size, at);
  if (got > 0) lseek(fd, at + got, SEEK_SET);
  return got;
}

// The end of a process is no power cut.
__attribute__((destructor)) static void finish(void) {
  pthread_mutex_lock(&lock);
  for (struct file* file = files; file; file = file->next) let_go(file);
  pthread_mutex_unlock(&lock);
}
