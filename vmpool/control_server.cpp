#include "vmpool/control_server.hpp"

#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>

#include <boost/asio/buffer.hpp>
#include <boost/asio/local/stream_protocol.hpp>
#include <boost/asio/read_until.hpp>
#include <boost/asio/write.hpp>
#include <nlohmann/json.hpp>
#include <set>

namespace zz::vmpool {
namespace {

using boost::system::error_code;
using Json = nlohmann::json;
using Local = boost::asio::local::stream_protocol;

struct Connection : std::enable_shared_from_this<Connection> {
  Connection(Local::socket accepted, ControlServer::OnCommand handler)
      : socket(std::move(accepted)), on_command(std::move(handler)) {}

  Local::socket socket;
  ControlServer::OnCommand on_command;
  std::string input;
  std::string output;
  bool last = false;  // close after this answer
  std::function<void()> on_end;

  void read() {
    boost::asio::async_read_until(socket, boost::asio::dynamic_buffer(input, kControlLineMax), '\n',
                                  [self = shared_from_this()](const error_code& error, std::size_t size) {
                                    if (error == boost::asio::error::not_found) return self->refuse_last();
                                    if (error) return self->end();
                                    self->take(size);
                                  });
  }

  // One command at a time: the next line is read when this one is answered.
  void take(std::size_t size) {
    const Json command = Json::parse(input.begin(), input.begin() + static_cast<std::ptrdiff_t>(size), nullptr,
                                     /*allow_exceptions=*/false);
    input.erase(0, size);
    if (!command.is_object()) return write(ControlServer::refusal("a line must hold one JSON object"));
    if (!on_command) return end();
    on_command(command, [weak = weak_from_this()](const Json& answer) {
      if (const auto self = weak.lock(); self && self->socket.is_open()) self->write(answer);
    });
  }

  void refuse_last() {
    last = true;
    write(ControlServer::refusal("a line holds at most " + std::to_string(kControlLineMax) + " bytes"));
  }

  void write(const Json& answer) {
    output = answer.dump(-1, ' ', false, Json::error_handler_t::replace) + "\n";
    boost::asio::async_write(socket, boost::asio::buffer(output),
                             [self = shared_from_this()](const error_code& error, std::size_t) {
                               if (error || self->last) return self->end();
                               self->read();
                             });
  }

  void end() {
    error_code ignored;
    socket.close(ignored);
    on_command = nullptr;
    if (const auto done = std::exchange(on_end, nullptr)) done();
  }
};

}  // namespace

struct ControlServer::State : std::enable_shared_from_this<ControlServer::State> {
  State(boost::asio::io_context& loop, std::string socket_path, OnCommand handler)
      : path(std::move(socket_path)), on_command(std::move(handler)), acceptor(loop) {}

  std::string path;
  OnCommand on_command;
  Local::acceptor acceptor;
  std::set<std::shared_ptr<Connection>> connections;

  Result<void> listen() {
    if (path.size() >= sizeof(sockaddr_un::sun_path)) return Error{path + ": the path is too long for a socket"};
    ::unlink(path.c_str());
    error_code error;
    acceptor.open(Local(), error);
    // Between bind and chmod nobody else may open it.
    const mode_t before = ::umask(0177);
    if (!error) acceptor.bind(Local::endpoint(path), error);
    ::umask(before);
    if (!error) acceptor.listen(static_cast<int>(kControlConnectionsMax), error);
    if (error) return Error{path + ": cannot serve: " + error.message()};
    return {};
  }

  void accept() {
    acceptor.async_accept([weak = weak_from_this()](const error_code& error, Local::socket socket) {
      const auto self = weak.lock();
      if (!self || !self->acceptor.is_open()) return;
      if (!error) self->greet(std::move(socket));
      self->accept();
    });
  }

  void greet(Local::socket socket) {
    auto connection = std::make_shared<Connection>(std::move(socket), on_command);
    if (connections.size() >= kControlConnectionsMax) {
      connection->last = true;
      return connection->write(refusal("too many connections; try again"));
    }
    connections.insert(connection);
    connection->on_end = [weak = weak_from_this(), raw = std::weak_ptr(connection)] {
      const auto self = weak.lock();
      const auto gone = raw.lock();
      if (self && gone) self->connections.erase(gone);
    };
    connection->read();
  }

  void close() {
    error_code ignored;
    acceptor.close(ignored);
    for (const auto& connection : std::exchange(connections, {})) connection->end();
    ::unlink(path.c_str());
  }
};

Json ControlServer::refusal(const std::string& why) { return {{"ok", false}, {"error", why}}; }

Result<std::unique_ptr<ControlServer>> ControlServer::make(boost::asio::io_context& loop, const std::string& path,
                                                           OnCommand on_command) {
  auto state = std::make_shared<State>(loop, path, std::move(on_command));
  if (auto listening = state->listen(); !listening) return Error{listening.error()};
  state->accept();
  return std::unique_ptr<ControlServer>(new ControlServer(std::move(state)));
}

ControlServer::ControlServer(std::shared_ptr<State> state) : state_(std::move(state)) {}

ControlServer::~ControlServer() { state_->close(); }

}  // namespace zz::vmpool
