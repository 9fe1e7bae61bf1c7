#pragma once

// Ed25519 (RFC 8032, libsodium). A signature covers (domain, cluster, protocol version, sender, fields), so
// no signed message can be taken for another kind, cluster or sender's. Any thread after init().

#include <array>
#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "base/bytes.hpp"
#include "base/ids.hpp"
#include "base/result.hpp"

namespace zz::crypto {

// Of the messages and of what is signed. Parties of different versions refuse each other at the handshake
// (crypto/tls.hpp).
inline constexpr std::uint32_t kProtocolVersion = 2;

struct PublicKey {
  std::array<std::uint8_t, 32> bytes{};
  auto operator<=>(const PublicKey&) const = default;
};

struct Signature {
  std::array<std::uint8_t, 64> bytes{};
  auto operator<=>(const Signature&) const = default;
};

struct ClusterId {
  std::array<std::uint8_t, 16> bytes{};
  auto operator<=>(const ClusterId&) const = default;
};

// Must succeed once before anything else here is called (sodium_init).
Result<void> init();

// An Ed25519 secret key in locked, guarded memory; moved, never copied.
class SecretKey {
 public:
  static SecretKey generate();
  static SecretKey from_seed(std::span<const std::uint8_t, 32> seed);
  SecretKey(SecretKey&&) noexcept;
  SecretKey& operator=(SecretKey&&) noexcept;
  ~SecretKey();

  [[nodiscard]] const PublicKey& public_key() const { return public_key_; }
  [[nodiscard]] std::array<std::uint8_t, 32> seed() const;
  // Signs exactly `message`; callers build it with SignedFields.
  [[nodiscard]] Signature sign(ByteView message) const;

 private:
  SecretKey() = default;
  std::uint8_t* secret_ = nullptr;  // 64 bytes from sodium_malloc
  PublicKey public_key_{};
};

[[nodiscard]] bool verify(const PublicKey& key, ByteView message, const Signature& signature);

// The exact bytes a signature covers. `kind` is the message's name ("WAKE", "SUSPECT", "JOIN").
class SignedFields {
 public:
  SignedFields(const ClusterId& cluster, std::string_view kind);
  SignedFields& u64(std::uint64_t value);
  SignedFields& bytes(ByteView value);
  template <class Tag, class Rep>
  SignedFields& id(const Strong<Tag, Rep>& value) {
    return u64(static_cast<std::uint64_t>(value.value));
  }
  [[nodiscard]] ByteView view() const { return buffer_; }

 private:
  Bytes buffer_;
};

// Key file: 64 hexadecimal digits (the seed) and a newline, mode 0600, owned by the caller's user. Loading
// refuses a file that others may read.
Result<void> save_secret_key(const std::string& path, const SecretKey& key);
Result<SecretKey> load_secret_key(const std::string& path);

}  // namespace zz::crypto
