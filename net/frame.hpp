#pragma once

// The frame codec of channels (docs/protocol.md §3). Pure: no sockets, no clock. One thread.
//
//   frame    u32 body length | u16 message count | u16 frame version, then the body
//   body     per message: u32 length | u32 zero | bytes
//
// All numbers are little-endian. A message's length is a positive multiple of 8, so headers, bodies and
// messages stay 8-byte aligned. A frame of no messages (body length 0, count 0) is the listener's welcome:
// see net/connection.hpp.
//
// Invariants:
//  1. Nothing is allocated for a frame whose header breaks a bound, never more than its checked body length.
//  2. No message of a frame is handed out before the whole frame has been received and checked.
//  3. Messages are slices of the frame's one body buffer: 8-byte aligned, not copied.

#include <cstddef>
#include <cstdint>
#include <memory>
#include <span>

#include "base/bytes.hpp"
#include "base/refusal.hpp"

namespace zz::net {

inline constexpr std::size_t kFrameHeaderBytes = 8;
inline constexpr std::size_t kMessageHeaderBytes = 8;
inline constexpr std::size_t kMessageAlignment = 8;
inline constexpr std::uint16_t kFrameVersion = 1;
inline constexpr std::size_t kFrameMessagesMax = 0xffff;

// Appends one frame of as many leading messages as fit into `body_bytes_max` to `out`; returns how many. 0,
// and `out` unchanged, when there are none or the first alone does not fit. Requires message lengths that are
// positive multiples of 8.
std::size_t append_frame(std::span<const SharedBytes> messages, std::size_t body_bytes_max, Bytes& out);
// Appends a frame of no messages.
void append_empty_frame(Bytes& out);

// Takes a byte stream apart into frames. Bytes are written to where space() says (no copy in between), or
// handed to feed(). After a refusal the reader is of no more use: the stream has lost its frame boundaries.
class FrameReader {
 public:
  explicit FrameReader(std::size_t body_bytes_max) : body_bytes_max_(body_bytes_max) {}

  // Where the next bytes of the stream go; never empty. Requires !has_frame() and no refusal so far.
  [[nodiscard]] std::span<std::uint8_t> space();
  // Says that `count` bytes were written to the front of space(). kOversize: the body is longer than the
  // limit; kMalformed: version, count, lengths, zero field or padding are wrong. Requires count <= space().size().
  Refusal advance(std::size_t count);
  // Consumes `bytes` from its front until it is empty, a frame is complete, or the stream is refused.
  Refusal feed(ByteView& bytes);

  // A whole, checked frame is here and not all of its messages have been taken (or it has none: take with skip()).
  [[nodiscard]] bool has_frame() const { return complete_; }
  [[nodiscard]] std::size_t messages_left() const { return messages_left_; }
  // The next message of the frame; after the last one the reader goes on to the next frame. Requires
  // messages_left() > 0.
  SharedBytes take();
  // Drops what is left of the frame. Requires has_frame().
  void skip() { start_header(); }
  // Body length that the header of the current frame announced, for reports.
  [[nodiscard]] std::size_t announced_bytes() const { return body_bytes_; }
  // Memory held for the current frame.
  [[nodiscard]] std::size_t held_bytes() const { return body_ ? body_bytes_ : 0; }

 private:
  Refusal check_header();
  [[nodiscard]] bool body_is_sound() const;
  [[nodiscard]] const std::uint8_t* body() const { return reinterpret_cast<const std::uint8_t*>(body_.get()); }
  void start_header();

  std::size_t body_bytes_max_;
  alignas(8) std::uint8_t header_[kFrameHeaderBytes] = {};
  std::size_t filled_ = 0;  // of the header, then of the body
  std::size_t body_bytes_ = 0;
  std::size_t messages_left_ = 0;
  std::size_t cursor_ = 0;  // offset in the body of the next message's header
  bool in_body_ = false;
  bool complete_ = false;
  bool refused_ = false;
  std::shared_ptr<std::uint64_t[]> body_;
};

}  // namespace zz::net
