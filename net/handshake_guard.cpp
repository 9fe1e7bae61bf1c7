#include "net/handshake_guard.hpp"

#include <algorithm>

namespace zz::net {
namespace {

// RFC 8446 §5.1 and §4: record types, the record header, the handshake message header.
constexpr std::uint8_t kChangeCipherSpec = 20;
constexpr std::uint8_t kAlert = 21;
constexpr std::uint8_t kHandshake = 22;
constexpr std::uint8_t kApplicationData = 23;
constexpr std::uint8_t kClientHello = 1;
constexpr std::size_t kRecordHeaderBytes = 5;
constexpr std::size_t kMessageHeaderBytes = 4;
constexpr std::size_t kRecordBytesMax = (16u << 10) + 256;

static_assert(kHelloBytesMax < kHandshakeBytesMax);

std::size_t record_bytes(const std::uint8_t* header) { return static_cast<std::size_t>(header[3]) << 8 | header[4]; }

}  // namespace

Refusal HandshakeGuard::check(ByteView bytes) {
  total_ += bytes.size();
  if (total_ > kHandshakeBytesMax) return Refusal::kOversize;
  while (!bytes.empty()) {
    if (body_left_ > 0) {
      const std::size_t passed = std::min(body_left_, bytes.size());
      body_left_ -= passed;
      bytes = bytes.subspan(passed);
      continue;
    }
    header_[header_filled_++] = bytes.front();
    bytes = bytes.subspan(1);
    if (header_filled_ < kRecordHeaderBytes) continue;
    if (header_filled_ == kRecordHeaderBytes) {
      if (const Refusal refusal = check_record_header(); refusal != Refusal::kNone) return refusal;
      if (header_[0] == kHandshake) continue;
    } else if (header_filled_ < kRecordHeaderBytes + kMessageHeaderBytes) {
      continue;
    } else if (const Refusal refusal = check_hello_header(); refusal != Refusal::kNone) {
      return refusal;
    }
    body_left_ = record_bytes(header_) - (header_filled_ - kRecordHeaderBytes);
    header_filled_ = 0;
  }
  return Refusal::kNone;
}

Refusal HandshakeGuard::check_record_header() const {
  const std::uint8_t type = header_[0];
  const bool known = type == kChangeCipherSpec || type == kAlert || type == kHandshake || type == kApplicationData;
  if (!known || header_[1] != 3) return Refusal::kMalformed;
  const std::size_t size = record_bytes(header_);
  if (size == 0) return Refusal::kMalformed;
  if (size > kRecordBytesMax) return Refusal::kOversize;
  if (type == kHandshake && size <= kMessageHeaderBytes) return Refusal::kMalformed;
  return Refusal::kNone;
}

Refusal HandshakeGuard::check_hello_header() const {
  if (header_[5] != kClientHello) return Refusal::kMalformed;
  const std::size_t size =
      static_cast<std::size_t>(header_[6]) << 16 | static_cast<std::size_t>(header_[7]) << 8 | header_[8];
  if (size > kHelloBytesMax) return Refusal::kOversize;
  return size + kMessageHeaderBytes == record_bytes(header_) ? Refusal::kNone : Refusal::kMalformed;
}

}  // namespace zz::net
