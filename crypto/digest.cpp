#include "crypto/digest.hpp"

#include <openssl/evp.h>

#include <cstring>
#include <memory>

#include "base/assert.hpp"

namespace zz::crypto {
namespace {

struct FreeContext {
  void operator()(EVP_MD_CTX* context) const { EVP_MD_CTX_free(context); }
};
using Context = std::unique_ptr<EVP_MD_CTX, FreeContext>;

// Looked up once: a lookup by name costs more than hashing a small message.
const EVP_MD* algorithm() {
  static const EVP_MD* const fetched = EVP_MD_fetch(nullptr, "SHA256", nullptr);
  ZZ_ASSERT(fetched != nullptr);
  return fetched;
}

// A context that has hashed once restarts without allocating, so each thread keeps one for one-shot digests
// and one for a writer whose buffer overflowed.
thread_local Context one_shot;
thread_local Context spare;

void restart(EVP_MD_CTX* context) { ZZ_ASSERT(EVP_DigestInit_ex2(context, algorithm(), nullptr) == 1); }

EVP_MD_CTX* streaming_context() {
  EVP_MD_CTX* context = spare ? spare.release() : EVP_MD_CTX_new();
  ZZ_ASSERT(context != nullptr);
  restart(context);
  return context;
}

void give_back(void* context) { spare.reset(static_cast<EVP_MD_CTX*>(context)); }

Digest hash(const void* data, std::size_t size) {
  if (!one_shot) one_shot.reset(EVP_MD_CTX_new());
  ZZ_ASSERT(one_shot != nullptr);
  restart(one_shot.get());
  Digest out;
  ZZ_ASSERT(EVP_DigestUpdate(one_shot.get(), data, size) == 1);
  ZZ_ASSERT(EVP_DigestFinal_ex(one_shot.get(), out.bytes.data(), nullptr) == 1);
  return out;
}

}  // namespace

Digest sha256(ByteView bytes) { return hash(bytes.data(), bytes.size()); }

DigestWriter::DigestWriter(std::string_view domain) { bytes(as_bytes(domain)); }

DigestWriter::~DigestWriter() {
  if (context_ != nullptr) give_back(context_);
}

DigestWriter& DigestWriter::u64(std::uint64_t value) {
  std::uint8_t raw[8];
  for (int i = 0; i < 8; ++i) raw[i] = static_cast<std::uint8_t>(value >> (8 * i));
  put(raw, sizeof raw);
  return *this;
}

DigestWriter& DigestWriter::bytes(ByteView value) {
  u64(value.size());
  put(value.data(), value.size());
  return *this;
}

DigestWriter& DigestWriter::digest(const Digest& value) {
  put(value.bytes.data(), value.bytes.size());
  return *this;
}

void DigestWriter::put(const void* data, std::size_t size) {
  if (size == 0) return;  // an empty view may carry no pointer
  if (size <= buffer_.size() - used_) {
    std::memcpy(buffer_.data() + used_, data, size);
    used_ += size;
    return;
  }
  if (context_ == nullptr) context_ = streaming_context();
  auto* const context = static_cast<EVP_MD_CTX*>(context_);
  ZZ_ASSERT(EVP_DigestUpdate(context, buffer_.data(), used_) == 1);
  used_ = 0;
  if (size <= buffer_.size()) {
    std::memcpy(buffer_.data(), data, size);
    used_ = size;
    return;
  }
  ZZ_ASSERT(EVP_DigestUpdate(context, data, size) == 1);
}

Digest DigestWriter::finish() {
  if (context_ == nullptr) return hash(buffer_.data(), used_);
  auto* const context = static_cast<EVP_MD_CTX*>(context_);
  Digest out;
  ZZ_ASSERT(EVP_DigestUpdate(context, buffer_.data(), used_) == 1);
  ZZ_ASSERT(EVP_DigestFinal_ex(context, out.bytes.data(), nullptr) == 1);
  give_back(context_);
  context_ = nullptr;
  return out;
}

}  // namespace zz::crypto
