#include "crypto/digest.hpp"

#define OPENSSL_SUPPRESS_DEPRECATED  // EVP allocates and frees a context for each digest of a few bytes
#include <openssl/sha.h>

#include <cstring>
#include <memory>

#include "base/assert.hpp"

namespace zz::crypto {
namespace {

Digest finished(SHA256_CTX& context, const void* data, std::size_t size) {
  Digest out;
  ZZ_ASSERT(SHA256_Update(&context, data, size) == 1);
  ZZ_ASSERT(SHA256_Final(out.bytes.data(), &context) == 1);
  return out;
}

Digest hash(const void* data, std::size_t size) {
  SHA256_CTX context;
  ZZ_ASSERT(SHA256_Init(&context) == 1);
  return finished(context, data, size);
}

}  // namespace

Digest sha256(ByteView bytes) { return hash(bytes.data(), bytes.size()); }

DigestWriter::DigestWriter(std::string_view domain) { bytes(as_bytes(domain)); }

DigestWriter::~DigestWriter() = default;

void DigestWriter::overflow(const void* data, std::size_t size) {
  if (!context_) {
    context_ = std::make_unique<SHA256_CTX>();
    ZZ_ASSERT(SHA256_Init(context_.get()) == 1);
  }
  ZZ_ASSERT(SHA256_Update(context_.get(), buffer_.data(), used_) == 1);
  used_ = 0;
  if (size <= buffer_.size()) {
    std::memcpy(buffer_.data(), data, size);
    used_ = size;
    return;
  }
  ZZ_ASSERT(SHA256_Update(context_.get(), data, size) == 1);
}

Digest DigestWriter::finish() {
  return context_ ? finished(*context_, buffer_.data(), used_) : hash(buffer_.data(), used_);
}

}  // namespace zz::crypto
