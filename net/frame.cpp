#include "net/frame.hpp"

#include <algorithm>
#include <bit>
#include <cstring>

#include "base/assert.hpp"

namespace zz::net {
namespace {

static_assert(std::endian::native == std::endian::little, "numbers of a frame are copied as they are");
static_assert(kFrameHeaderBytes % kMessageAlignment == 0 && kMessageHeaderBytes % kMessageAlignment == 0);

template <class Number>
Number load(const std::uint8_t* from) {
  Number value;
  std::memcpy(&value, from, sizeof value);
  return value;
}

template <class Number>
void store(std::uint8_t* to, Number value) {
  std::memcpy(to, &value, sizeof value);
}

// A message header and the least message.
constexpr std::size_t kMessageBytesMin = kMessageHeaderBytes + kMessageAlignment;

void append_header(std::size_t body_bytes, std::size_t count, Bytes& out) {
  std::uint8_t header[kFrameHeaderBytes];
  store(header, static_cast<std::uint32_t>(body_bytes));
  store(header + 4, static_cast<std::uint16_t>(count));
  store(header + 6, kFrameVersion);
  out.insert(out.end(), header, header + kFrameHeaderBytes);
}

}  // namespace

std::size_t append_frame(std::span<const SharedBytes> messages, std::size_t body_bytes_max, Bytes& out) {
  const std::size_t most = std::min(messages.size(), kFrameMessagesMax);
  const std::size_t room = std::min<std::size_t>(body_bytes_max, UINT32_MAX);
  std::size_t body_bytes = 0;
  std::size_t count = 0;
  for (; count < most; ++count) {
    const std::size_t size = messages[count].size();
    ZZ_ASSERT(size > 0 && size % kMessageAlignment == 0);
    if (size > room || kMessageHeaderBytes + size > room - body_bytes) break;
    body_bytes += kMessageHeaderBytes + size;
  }
  if (count == 0) return 0;

  out.reserve(out.size() + kFrameHeaderBytes + body_bytes);
  append_header(body_bytes, count, out);
  for (const SharedBytes& message : messages.first(count)) {
    std::uint8_t header[kMessageHeaderBytes] = {};
    store(header, static_cast<std::uint32_t>(message.size()));
    out.insert(out.end(), header, header + kMessageHeaderBytes);
    out.insert(out.end(), message.data(), message.data() + message.size());
  }
  return count;
}

void append_empty_frame(Bytes& out) { append_header(0, 0, out); }

std::span<std::uint8_t> FrameReader::space() {
  ZZ_ASSERT(!complete_ && !refused_);
  if (!in_body_) return std::span(header_).subspan(filled_);
  return {reinterpret_cast<std::uint8_t*>(body_.get()) + filled_, body_bytes_ - filled_};
}

Refusal FrameReader::advance(std::size_t count) {
  ZZ_ASSERT(count <= space().size());
  filled_ += count;
  if (!in_body_) {
    if (filled_ < kFrameHeaderBytes) return Refusal::kNone;
    if (const Refusal refusal = check_header(); refusal != Refusal::kNone) {
      refused_ = true;
      return refusal;
    }
    if (body_bytes_ == 0) {
      complete_ = true;
      return Refusal::kNone;
    }
    // Not cleared: every byte is written before anybody reads it.
    body_ = std::make_shared_for_overwrite<std::uint64_t[]>(body_bytes_ / sizeof(std::uint64_t));
    in_body_ = true;
    filled_ = 0;
    return Refusal::kNone;
  }
  if (filled_ < body_bytes_) return Refusal::kNone;
  if (!body_is_sound()) {
    refused_ = true;
    body_.reset();
    return Refusal::kMalformed;
  }
  complete_ = true;
  return Refusal::kNone;
}

Refusal FrameReader::feed(ByteView& bytes) {
  while (!bytes.empty() && !complete_) {
    const std::span<std::uint8_t> to = space();
    const std::size_t count = std::min(to.size(), bytes.size());
    std::memcpy(to.data(), bytes.data(), count);
    bytes = bytes.subspan(count);
    if (const Refusal refusal = advance(count); refusal != Refusal::kNone) return refusal;
  }
  return Refusal::kNone;
}

Refusal FrameReader::check_header() {
  body_bytes_ = load<std::uint32_t>(header_);
  const std::size_t count = load<std::uint16_t>(header_ + 4);
  if (load<std::uint16_t>(header_ + 6) != kFrameVersion) return Refusal::kMalformed;
  if (body_bytes_ > body_bytes_max_) return Refusal::kOversize;
  if (body_bytes_ % kMessageAlignment != 0) return Refusal::kMalformed;
  if ((count == 0) != (body_bytes_ == 0) || count * kMessageBytesMin > body_bytes_) return Refusal::kMalformed;
  messages_left_ = count;
  cursor_ = 0;
  return Refusal::kNone;
}

bool FrameReader::body_is_sound() const {
  std::size_t at = 0;
  for (std::size_t i = 0; i < messages_left_; ++i) {
    if (body_bytes_ - at < kMessageBytesMin) return false;
    const std::size_t size = load<std::uint32_t>(body() + at);
    if (load<std::uint32_t>(body() + at + 4) != 0) return false;
    at += kMessageHeaderBytes;
    if (size == 0 || size % kMessageAlignment != 0 || size > body_bytes_ - at) return false;
    at += size;
  }
  return at == body_bytes_;
}

SharedBytes FrameReader::take() {
  ZZ_ASSERT(complete_ && messages_left_ > 0);
  const std::size_t size = load<std::uint32_t>(body() + cursor_);
  const ByteView message(body() + cursor_ + kMessageHeaderBytes, size);
  cursor_ += kMessageHeaderBytes + size;
  if (--messages_left_ > 0) return SharedBytes(body_, message);
  SharedBytes last(std::move(body_), message);  // the frame now lives as long as its messages
  start_header();
  return last;
}

void FrameReader::start_header() {
  body_.reset();
  filled_ = 0;
  body_bytes_ = 0;
  messages_left_ = 0;
  in_body_ = false;
  complete_ = false;
}

}  // namespace zz::net
