#include "execution/reseed.hpp"

#include <fcntl.h>
#include <openssl/rand.h>
#include <unistd.h>

namespace zz::execution {

void reseed(const std::array<std::uint8_t, 32>& entropy) {
  RAND_seed(entropy.data(), static_cast<int>(entropy.size()));
  const int fd = open("/dev/urandom", O_WRONLY | O_CLOEXEC);
  if (fd < 0) return;
  [[maybe_unused]] const ssize_t written = write(fd, entropy.data(), entropy.size());
  close(fd);
}

}  // namespace zz::execution
