#include "crypto/sign.hpp"

#include <fcntl.h>
#include <fmt/format.h>
#include <sodium.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cerrno>
#include <cstring>

#include "base/assert.hpp"

namespace zz::crypto {
namespace {

static_assert(crypto_sign_SECRETKEYBYTES == 64 && crypto_sign_PUBLICKEYBYTES == 32 && crypto_sign_BYTES == 64);

constexpr std::size_t kKeyFileBytes = 65;  // 64 digits and a newline

// Closes a descriptor at the end of its scope.
class OpenFile {
 public:
  explicit OpenFile(int fd) : fd_(fd) {}
  ~OpenFile() {
    if (fd_ >= 0) ::close(fd_);
  }
  OpenFile(const OpenFile&) = delete;
  OpenFile& operator=(const OpenFile&) = delete;
  [[nodiscard]] int fd() const { return fd_; }

 private:
  int fd_;
};

Error file_error(const std::string& path, std::string_view what) {
  return Error{fmt::format("{}: {}: {}", path, what, std::strerror(errno))};
}

}  // namespace

Result<void> init() {
  if (sodium_init() < 0) return Error{"libsodium found no source of randomness on this machine"};
  return {};
}

SecretKey SecretKey::generate() {
  SecretKey key;
  key.secret_ = static_cast<std::uint8_t*>(sodium_malloc(crypto_sign_SECRETKEYBYTES));
  ZZ_ASSERT(key.secret_ != nullptr);
  ZZ_ASSERT(crypto_sign_keypair(key.public_key_.bytes.data(), key.secret_) == 0);
  return key;
}

SecretKey SecretKey::from_seed(std::span<const std::uint8_t, 32> seed) {
  SecretKey key;
  key.secret_ = static_cast<std::uint8_t*>(sodium_malloc(crypto_sign_SECRETKEYBYTES));
  ZZ_ASSERT(key.secret_ != nullptr);
  ZZ_ASSERT(crypto_sign_seed_keypair(key.public_key_.bytes.data(), key.secret_, seed.data()) == 0);
  return key;
}

SecretKey::SecretKey(SecretKey&& other) noexcept
    : secret_(std::exchange(other.secret_, nullptr)), public_key_(other.public_key_) {}

SecretKey& SecretKey::operator=(SecretKey&& other) noexcept {
  if (this == &other) return *this;
  sodium_free(secret_);
  secret_ = std::exchange(other.secret_, nullptr);
  public_key_ = other.public_key_;
  return *this;
}

SecretKey::~SecretKey() { sodium_free(secret_); }

std::array<std::uint8_t, 32> SecretKey::seed() const {
  ZZ_ASSERT(secret_ != nullptr);
  std::array<std::uint8_t, 32> out{};
  crypto_sign_ed25519_sk_to_seed(out.data(), secret_);
  return out;
}

Signature SecretKey::sign(ByteView message) const {
  ZZ_ASSERT(secret_ != nullptr);
  Signature out;
  ZZ_ASSERT(crypto_sign_detached(out.bytes.data(), nullptr, message.data(), message.size(), secret_) == 0);
  return out;
}

bool verify(const PublicKey& key, ByteView message, const Signature& signature) {
  return crypto_sign_verify_detached(signature.bytes.data(), message.data(), message.size(), key.bytes.data()) == 0;
}

SignedFields::SignedFields(const ClusterId& cluster, std::string_view kind) {
  buffer_.reserve(256);
  bytes(as_bytes("zz signed message"));
  bytes(cluster.bytes);
  u64(kProtocolVersion);
  bytes(as_bytes(kind));
}

SignedFields& SignedFields::u64(std::uint64_t value) {
  for (int i = 0; i < 8; ++i) buffer_.push_back(static_cast<std::uint8_t>(value >> (8 * i)));
  return *this;
}

SignedFields& SignedFields::bytes(ByteView value) {
  u64(value.size());
  buffer_.insert(buffer_.end(), value.begin(), value.end());
  return *this;
}

Result<void> save_secret_key(const std::string& path, const SecretKey& key) {
  const OpenFile file(::open(path.c_str(), O_WRONLY | O_CREAT | O_EXCL | O_NOFOLLOW | O_CLOEXEC, 0600));
  if (file.fd() < 0) return file_error(path, "cannot create key file");
  if (::fchmod(file.fd(), 0600) != 0) return file_error(path, "cannot protect key file");
  auto seed = key.seed();
  std::array<char, kKeyFileBytes> text{};  // the last byte holds the terminator, then the newline
  sodium_bin2hex(text.data(), text.size(), seed.data(), seed.size());
  text.back() = '\n';
  const ssize_t written = ::write(file.fd(), text.data(), text.size());
  sodium_memzero(seed.data(), seed.size());
  sodium_memzero(text.data(), text.size());
  if (written < 0) return file_error(path, "cannot write key file");
  if (static_cast<std::size_t>(written) != kKeyFileBytes) {
    return Error{fmt::format("{}: cannot write key file: disk full", path)};
  }
  if (::fsync(file.fd()) != 0) return file_error(path, "cannot write key file");
  return {};
}

Result<SecretKey> load_secret_key(const std::string& path) {
  const OpenFile file(::open(path.c_str(), O_RDONLY | O_NOFOLLOW | O_NONBLOCK | O_CLOEXEC));
  if (file.fd() < 0) return file_error(path, "cannot open key file");
  struct stat info {};
  if (::fstat(file.fd(), &info) != 0) return file_error(path, "cannot read key file");
  if (!S_ISREG(info.st_mode)) return Error{fmt::format("{}: key file is not a regular file", path)};
  if ((info.st_mode & 077) != 0) {
    return Error{fmt::format("{}: key file has mode {:04o}, others could read it; run chmod 600 on it", path,
                             info.st_mode & 07777)};
  }
  if (info.st_uid != ::geteuid()) {
    return Error{fmt::format("{}: key file belongs to user {}, not to the user who runs this ({})", path, info.st_uid,
                             ::geteuid())};
  }
  std::array<char, kKeyFileBytes + 1> text{};
  const ssize_t got = ::read(file.fd(), text.data(), text.size());
  if (got < 0) return file_error(path, "cannot read key file");
  const auto size = static_cast<std::size_t>(got);
  std::array<std::uint8_t, 32> seed{};
  const bool shaped = size == kKeyFileBytes - 1 || (size == kKeyFileBytes && text[kKeyFileBytes - 1] == '\n');
  const bool good = shaped && from_hex(std::string_view(text.data(), kKeyFileBytes - 1), seed);
  sodium_memzero(text.data(), text.size());
  if (!good) return Error{fmt::format("{}: not a key file (64 hexadecimal digits and a newline)", path)};
  SecretKey key = SecretKey::from_seed(seed);
  sodium_memzero(seed.data(), seed.size());
  return key;
}

}  // namespace zz::crypto
