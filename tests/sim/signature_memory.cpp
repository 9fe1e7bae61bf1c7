// Makes zz_sim_run (and nothing else) fast: what this process has signed itself is not verified again by real
// arithmetic. Most of a run's time would go into that. Signing stays real, so that nothing a run does depends on this;
// signatures that were not made here, or not over these bytes with this key, are verified by the library. Linked into a
// program, these functions stand before libsodium's own.

#include <dlfcn.h>
#include <sodium.h>

#include <array>
#include <cstring>
#include <string>
#include <unordered_map>

#include "base/assert.hpp"

namespace {

using SignFunction = int (*)(unsigned char*, unsigned long long*, const unsigned char*, unsigned long long,
                             const unsigned char*);
using VerifyFunction = int (*)(const unsigned char*, const unsigned char*, unsigned long long, const unsigned char*);

template <class Function>
Function library(const char* name) {
  void* symbol = ::dlsym(RTLD_NEXT, name);
  ZZ_ASSERT(symbol != nullptr);
  return reinterpret_cast<Function>(symbol);
}

// Signature -> public key and message. Bounded: emptied when full.
constexpr std::size_t kSignedMax = 20'000;
std::unordered_map<std::string, std::string> made;

std::string text(const unsigned char* bytes, unsigned long long size) {
  return std::string(reinterpret_cast<const char*>(bytes), size);
}

}  // namespace

extern "C" int crypto_sign_detached(unsigned char* signature, unsigned long long* size, const unsigned char* message,
                                    unsigned long long message_size, const unsigned char* secret_key) {
  static const auto real = library<SignFunction>("crypto_sign_detached");
  const int result = real(signature, size, message, message_size, secret_key);
  if (made.size() >= kSignedMax) made.clear();
  // The second half of a secret key is its public key.
  if (result == 0) {
    made[text(signature, crypto_sign_BYTES)] =
        text(secret_key + 32, crypto_sign_PUBLICKEYBYTES) + text(message, message_size);
  }
  return result;
}

extern "C" int crypto_sign_verify_detached(const unsigned char* signature, const unsigned char* message,
                                           unsigned long long size, const unsigned char* public_key) {
  static const auto real = library<VerifyFunction>("crypto_sign_verify_detached");
  const auto known = made.find(text(signature, crypto_sign_BYTES));
  if (known != made.end() && known->second.size() == crypto_sign_PUBLICKEYBYTES + size &&
      std::memcmp(known->second.data(), public_key, crypto_sign_PUBLICKEYBYTES) == 0 &&
      std::memcmp(known->second.data() + crypto_sign_PUBLICKEYBYTES, message, size) == 0) {
    return 0;
  }
  return real(signature, message, size, public_key);
}
