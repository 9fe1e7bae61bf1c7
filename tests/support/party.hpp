#pragma once

// Parties of channel tests: a Network with its own key, an address book of the keys it knows, and a record of all that
// its handler heard. One thread.

#include <boost/asio/io_context.hpp>
#include <functional>
#include <map>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "crypto/sign.hpp"
#include "net/channel.hpp"

namespace zz::test {

// Makes crypto::init() happen before the first key.
inline void init_crypto() { ZZ_ASSERT(crypto::init().ok()); }

inline crypto::Peer node(std::uint32_t index) { return {.role = crypto::Role::kNode, .index = index}; }
inline crypto::Peer client(std::uint32_t index) { return {.role = crypto::Role::kClient, .index = index}; }

// A message of `words` 8-byte words, recognisable by its number.
inline SharedBytes numbered_message(std::uint64_t number, std::size_t words = 1) {
  Bytes bytes(words * 8);
  for (std::size_t i = 0; i < bytes.size(); ++i)
    bytes[i] = static_cast<std::uint8_t>((number + i / 8) >> (8 * (i % 8)));
  return SharedBytes(std::move(bytes));
}

using Keys = std::map<crypto::PublicKey, crypto::Peer>;

class Party final : public net::Handler {
 public:
  struct Up {
    crypto::Peer peer;
    net::Channel* channel;
  };
  struct Down {
    crypto::Peer peer;
    std::string reason;
  };
  struct Message {
    crypto::Peer from;
    SharedBytes bytes;
  };
  struct Refused {
    Refusal reason;
    std::string who;
    std::string detail;
  };

  Party(boost::asio::io_context& loop, crypto::Peer me, net::NetLimits limits = {})
      : Party(loop, me, make_key(), limits) {}
  Party(boost::asio::io_context& loop, crypto::Peer me, crypto::SecretKey key, net::NetLimits limits)
      : loop_(loop), me_(me), limits_(limits), secret_(std::move(key)) {
    restart();
  }

  // Drops the network, with whatever is under way, and makes a new one with the same key.
  void restart() {
    network_.reset();
    network_ = std::make_unique<net::Network>(loop_, tls(), limits_, *this);
  }
  void stop() { network_.reset(); }

  [[nodiscard]] crypto::TlsContext tls() const {
    auto context = crypto::TlsContext::make(secret_, [keys = keys_](const crypto::PublicKey& key) {
      const auto found = keys->find(key);
      return found == keys->end() ? std::nullopt : std::optional(found->second);
    });
    ZZ_ASSERT(context.ok());
    return std::move(context).value();
  }

  void knows(const Party& other) { (*keys_)[other.key()] = other.me_; }
  void forgets(const Party& other) { keys_->erase(other.key()); }
  // Listens on any free port, the first time; later on the same one.
  [[nodiscard]] crypto::Address listen() {
    const Result<void> listening = network_->listen(address_);
    ZZ_ASSERT(listening.ok());
    address_.port = network_->listening_port();
    return address_;
  }
  [[nodiscard]] const crypto::Address& listening_address() const { return address_; }
  void dial(const crypto::Address& address, const Party& other) { network_->dial(address, other.key()); }

  [[nodiscard]] net::Network& network() { return *network_; }
  [[nodiscard]] net::Channel* channel_to(const Party& other) { return network_->find(other.me_); }
  [[nodiscard]] const crypto::PublicKey& key() const { return secret_.public_key(); }
  [[nodiscard]] crypto::SecretKey key_copy() const { return crypto::SecretKey::from_seed(secret_.seed()); }
  [[nodiscard]] const crypto::Peer& me() const { return me_; }
  [[nodiscard]] std::size_t refusals(Refusal reason) const {
    std::size_t count = 0;
    for (const Refused& one : refused) count += one.reason == reason ? 1 : 0;
    return count;
  }

  void on_up(net::Channel& channel) override {
    ups.push_back({channel.peer(), &channel});
    if (when_up) when_up(channel);
  }
  void on_message(net::Channel& channel, const SharedBytes& message) override {
    if (keeps_messages) messages.push_back({channel.peer(), message});
    if (when_message) when_message(channel, message);
  }
  void on_down(net::Channel& channel, std::string_view reason) override {
    downs.push_back({channel.peer(), std::string(reason)});
    if (when_down) when_down(channel);
  }
  void on_refused(Refusal reason, std::string_view who, std::string_view detail) override {
    refused.push_back({reason, std::string(who), std::string(detail)});
    if (when_refused) when_refused();
  }

  bool keeps_messages = true;
  std::vector<Up> ups;
  std::vector<Down> downs;
  std::vector<Message> messages;
  std::vector<Refused> refused;
  std::function<void(net::Channel&)> when_up;
  std::function<void(net::Channel&, const SharedBytes&)> when_message;
  std::function<void(net::Channel&)> when_down;
  std::function<void()> when_refused;

 private:
  static crypto::SecretKey make_key() {
    init_crypto();
    return crypto::SecretKey::generate();
  }

  boost::asio::io_context& loop_;
  crypto::Peer me_;
  net::NetLimits limits_;
  crypto::SecretKey secret_;
  std::shared_ptr<Keys> keys_ = std::make_shared<Keys>();
  crypto::Address address_;
  std::unique_ptr<net::Network> network_;
};

inline void introduce(Party& a, Party& b) {
  a.knows(b);
  b.knows(a);
}

}  // namespace zz::test
