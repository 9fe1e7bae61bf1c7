// A small web service that misbehaves on request: what the tests of the HTTP adapter drive besides nginx.
//
//   odd_service [--exit | --never | --no-reuse] PORT
//
// --exit: says why on standard error and ends; --never: never listens; --no-reuse: listens without SO_REUSEADDR. By
// target: /count answers how many requests it has had; /hang never answers; /crash ends the process; /close closes
// without an answer; /garbage answers no HTTP; /close-after answers, keeps the connection by its word and closes it;
// /chunked answers in chunks; /until-close ends its body by closing; /early answers 413 before it reads the body;
// /write appends a line to $STATE/log and answers how many lines it has; /write-crash, /write-hang and /write-close
// append and then do as their names say; /map changes $STATE/map through a shared mapping that it keeps; /state gives
// what is in $STATE/log; /interim sends 103 first; /half stops in the middle of its body and closes; everything else
// echoes the request it got.

#include <arpa/inet.h>
#include <fcntl.h>
#include <netinet/in.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <unistd.h>

#include <algorithm>
#include <atomic>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <fstream>
#include <iterator>
#include <string>
#include <thread>

namespace {

std::atomic<int> requests{0};

void send_all(int fd, const std::string& text) {
  std::size_t sent = 0;
  while (sent < text.size()) {
    const ssize_t n = send(fd, text.data() + sent, text.size() - sent, MSG_NOSIGNAL);
    if (n <= 0) return;
    sent += static_cast<std::size_t>(n);
  }
}

std::string plain(const std::string& body, const std::string& status = "200 OK") {
  return "HTTP/1.1 " + status +
         "\r\nContent-Type: text/plain\r\nDate: now\r\nContent-Length: " + std::to_string(body.size()) + "\r\n\r\n" +
         body;
}

std::string state_file(const char* name) { return std::string(std::getenv("STATE")) + "/" + name; }

std::string read_log() {
  std::ifstream file(state_file("log"));
  return {std::istreambuf_iterator<char>(file), {}};
}

void append_to_log() { std::ofstream(state_file("log"), std::ios::app) << "line\n"; }

// In the page cache alone until somebody asks the kernel for it.
void change_map() {
  static char* const map = [] {
    const int file = open(state_file("map").c_str(), O_RDWR | O_CREAT, 0644);
    if (file < 0 || ftruncate(file, 100'000) != 0) std::abort();
    return static_cast<char*>(mmap(nullptr, 100'000, PROT_READ | PROT_WRITE, MAP_SHARED, file, 0));
  }();
  for (std::size_t at = 0; at < 100'000; at += 5'000) ++map[at];
}

// False when the connection is to be closed.
bool answer(int fd, const std::string& target, const std::string& request) {
  const auto is = [&target](const char* name) { return target == name; };
  if (target.starts_with("/write")) append_to_log();
  if (is("/map")) change_map();
  if (is("/write")) {
    const std::string log = read_log();
    send_all(fd, plain(std::to_string(std::count(log.begin(), log.end(), '\n'))));
  }
  if (is("/state")) send_all(fd, plain(read_log()));
  if (is("/map")) send_all(fd, plain("mapped"));
  if (is("/write") || is("/state") || is("/map")) return true;
  if (is("/write-close")) return false;
  if (is("/write-hang")) {
    for (;;) pause();
  }
  if (is("/crash") || is("/write-crash")) std::abort();
  if (is("/hang")) {
    for (;;) pause();
  }
  if (is("/close")) return false;
  if (is("/count")) send_all(fd, plain(std::to_string(requests.load())));
  if (is("/garbage")) send_all(fd, "this is no HTTP\r\n\r\n");
  if (is("/chunked"))
    send_all(fd, "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n2\r\nde\r\n0\r\n\r\n");
  if (is("/interim")) send_all(fd, "HTTP/1.1 103 Early Hints\r\nLink: <a>\r\n\r\n" + plain("late"));
  if (is("/half")) send_all(fd, "HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\nhalf");
  if (is("/until-close")) send_all(fd, "HTTP/1.1 200 OK\r\n\r\nthe end");
  if (is("/close-after")) send_all(fd, plain("bye"));
  if (is("/half") || is("/until-close") || is("/close-after") || is("/garbage")) return false;
  if (is("/chunked") || is("/interim") || is("/count")) return true;
  send_all(fd, plain(request));
  return true;
}

void serve(int fd) {
  std::string buffer;
  char chunk[65'536];
  for (bool more = true; more;) {
    std::size_t head_end = 0;
    std::size_t whole = 0;
    bool early = false;
    while (true) {
      head_end = buffer.find("\r\n\r\n");
      if (head_end != std::string::npos) {
        const std::size_t length_at = buffer.find("Content-Length: ");
        const std::size_t length =
            length_at < head_end ? std::strtoul(buffer.c_str() + length_at + 16, nullptr, 10) : 0;
        whole = head_end + 4 + length;
        early = buffer.find(" /early ") < head_end;
        if (early || buffer.size() >= whole) break;
      }
      const ssize_t n = recv(fd, chunk, sizeof chunk, 0);
      if (n <= 0) {
        close(fd);
        return;
      }
      buffer.append(chunk, static_cast<std::size_t>(n));
    }
    ++requests;
    const std::size_t target_at = buffer.find(' ') + 1;
    const std::string target = buffer.substr(target_at, buffer.find(' ', target_at) - target_at);
    if (early) {
      send_all(fd, plain("too big", "413 Payload Too Large"));
      shutdown(fd, SHUT_WR);
      while (recv(fd, chunk, sizeof chunk, 0) > 0) {
      }
      break;
    }
    const std::string request = buffer.substr(0, whole);
    buffer.erase(0, whole);
    more = answer(fd, target, request);
  }
  close(fd);
}

}  // namespace

int main(int argc, char** argv) {
  const std::string mode = argc > 2 ? argv[1] : "";
  if (mode == "--exit") {
    std::fprintf(stderr, "starting\nconfiguration is wrong at line 7\n\n");
    return 3;
  }
  if (mode == "--never") {
    std::fprintf(stderr, "thinking\n");
    for (;;) pause();
  }
  const int listener = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
  const int on = 1;
  if (mode != "--no-reuse") setsockopt(listener, SOL_SOCKET, SO_REUSEADDR, &on, sizeof on);
  sockaddr_in address{};
  address.sin_family = AF_INET;
  address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
  address.sin_port = htons(static_cast<std::uint16_t>(std::atoi(argv[argc - 1])));
  if (bind(listener, reinterpret_cast<const sockaddr*>(&address), sizeof address) != 0 || listen(listener, 16) != 0) {
    std::fprintf(stderr, "cannot listen: %s\n", std::strerror(errno));
    return 1;
  }
  std::fprintf(stderr, "listening\n");
  for (;;) {
    const int fd = accept(listener, nullptr, nullptr);
    if (fd >= 0) std::thread(serve, fd).detach();
  }
}
