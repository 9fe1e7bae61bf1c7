// What zz says when it cannot do what it is asked for: one line on standard error that names the file, key, peer or
// option, and an exit status other than 0.

#include <arpa/inet.h>
#include <fmt/format.h>
#include <gmock/gmock.h>
#include <netinet/in.h>
#include <sys/socket.h>
#include <sys/stat.h>

#include <string>

#include "agreement/evidence_file.hpp"
#include "apps/local_cluster.hpp"
#include "crypto/cluster.hpp"
#include "execution/slot_layout.hpp"
#include "tests/apps/zz_process.hpp"

namespace zz::apps {
namespace {

using test::read_text;
using test::TemporaryDirectory;
using test::ZzProcess;
using ::testing::HasSubstr;
using ::testing::StartsWith;

// The last line of standard error; fails unless the run failed. `lines`: how many lines there must be, 0: any number.
std::string failure(std::vector<std::string> arguments, std::ptrdiff_t lines = 1) {
  ZzProcess zz(std::move(arguments));
  EXPECT_NE(zz.wait(), 0);
  std::string error = zz.err();
  if (lines > 0) {
    EXPECT_EQ(std::count(error.begin(), error.end(), '\n'), lines) << error;
  }
  if (!error.empty() && error.back() == '\n') error.pop_back();
  const std::size_t last = error.rfind('\n');
  return last == std::string::npos ? error : error.substr(last + 1);
}

class CommandLine : public ::testing::Test {
 protected:
  // A local cluster in DIR/c.
  void make(std::vector<std::string> more = {}) {
    more.insert(more.begin(), {"init", cluster_});
    ZzProcess zz(std::move(more));
    ASSERT_EQ(zz.wait(), 0) << zz.err();
  }
  // Changes its cluster.toml; the line that was changed.
  std::ptrdiff_t replace(const std::string& from, const std::string& to) {
    std::string text = read_text(cluster_ + "/cluster.toml");
    const std::size_t at = text.find(from);
    EXPECT_NE(at, std::string::npos) << from;
    if (at == std::string::npos) return 0;
    const auto line = 1 + std::count(text.begin(), text.begin() + static_cast<std::ptrdiff_t>(at), '\n');
    text.replace(at, from.size(), to);
    std::ofstream(cluster_ + "/cluster.toml") << text;
    return line;
  }

  TemporaryDirectory directory_;
  std::string cluster_ = directory_ / "c";
};

TEST_F(CommandLine, NamesAnUnknownCommandAndTheKnownOnes) {
  const std::string error = failure({"frobnicate"});
  EXPECT_THAT(error, StartsWith("zz: unknown command \"frobnicate\" (init, up, "));
  EXPECT_THAT(failure({}), HasSubstr("which command?"));
  EXPECT_THAT(failure({"two\nlines"}), StartsWith("zz: unknown command \"two lines\""));
}

TEST_F(CommandLine, NamesAnUnknownOption) {
  EXPECT_THAT(failure({"init", cluster_, "--colour"}),
              StartsWith("zz init: The following argument was not expected: --colour"));
  EXPECT_THAT(failure({"--colour"}), StartsWith("zz: "));
  EXPECT_THAT(failure({"init"}), StartsWith("zz init: DIR is required"));
  EXPECT_THAT(failure({"init", cluster_, "--f", "many"}), HasSubstr("--f"));
  EXPECT_THAT(failure({"status", "--dir", cluster_, "--", "word"}), HasSubstr("takes no words after --"));
}

TEST_F(CommandLine, TellsItsVersionAndHelp) {
  ZzProcess version({"--version"});
  EXPECT_EQ(version.wait(), 0);
  EXPECT_THAT(version.out(), StartsWith("zz "));
  ZzProcess help({"up", "--help"});
  EXPECT_EQ(help.wait(), 0);
  EXPECT_THAT(help.out(), HasSubstr("$PORT"));
}

TEST_F(CommandLine, EveryRoleSaysThatTheDirectoryIsMissing) {
  for (const auto& arguments : std::vector<std::vector<std::string>>{{"agreement", "--id", "0"},
                                                                     {"host", "--id", "0"},
                                                                     {"gateway"},
                                                                     {"status"},
                                                                     {"explain"},
                                                                     {"call", "get x"},
                                                                     {"fault", "0", "wrong-reply"}}) {
    std::vector<std::string> all = arguments;
    all.insert(all.begin() + 1, {"--dir", cluster_});
    EXPECT_EQ(failure(all),
              fmt::format("zz {}: {}/cluster.toml: cannot open: No such file or directory", arguments[0], cluster_));
  }
}

TEST_F(CommandLine, ExplainShowsTheRequestTheSlotsAndTheFirstByteThatDiffers) {
  make();
  agreement::Evidence evidence;
  evidence.n = Seq{41};
  evidence.requests = evidence.differing = 1;
  evidence.time = Micros{1'700'000'000'000'000};
  evidence.request = std::make_shared<const agreement::Request>(
      agreement::Request{ClientId{2}, SessionId{0x1f}, RequestNumber{3}, 0, SharedBytes::copy("get \"a\""), {}});
  evidence.reference = agreement::reference_of(*evidence.request);
  evidence.sides.push_back({{{SlotId{0}, Incarnation{1}}, {SlotId{2}, Incarnation{1}}},
                            {},
                            true,
                            SharedBytes::copy("the value is \x1b[1mgreen")});
  evidence.sides.push_back({{{SlotId{1}, Incarnation{4}}}, {}, false, SharedBytes::copy("the value is gone")});
  for (const NodeId node : {NodeId{0}, NodeId{3}}) {
    agreement::EvidenceFiles files(agreement::evidence_path(node_data_path(cluster_, node)));
    ASSERT_TRUE(files.write("kv", evidence));
  }
  ZzProcess zz({"explain", "--dir", cluster_});
  EXPECT_EQ(zz.wait(), 0) << zz.err();
  EXPECT_THAT(zz.out(), HasSubstr("service \"kv\", batch 41, epoch 0, agreed time 2023-11-14 22:13:20 UTC"));
  EXPECT_THAT(zz.out(), HasSubstr("(seen by node 0, node 3)"));
  EXPECT_THAT(zz.out(), HasSubstr("request 3 of session 000000000000001f of client 2"));
  EXPECT_THAT(zz.out(), HasSubstr("7 bytes: \"get \\\"a\\\"\""));
  EXPECT_THAT(zz.out(), HasSubstr("the replies differ from byte 13 on"));
  EXPECT_THAT(zz.out(), HasSubstr("slots 0 (incarnation 1), 2 (incarnation 1), right"));
  EXPECT_THAT(zz.out(), HasSubstr("slot 1 (incarnation 4), WRONG"));
  EXPECT_THAT(zz.out(), HasSubstr("the value is \\x1b[1mgreen"));
  EXPECT_THAT(zz.out(), HasSubstr("at byte 13: 676f6e65"));
  ZzProcess as_json({"explain", "--data", node_data_path(cluster_, NodeId{3}), "--batch", "41", "--json"});
  EXPECT_EQ(as_json.wait(), 0) << as_json.err();
  EXPECT_THAT(as_json.out(), StartsWith("[{"));
}

TEST_F(CommandLine, ExplainShowsTheObjectInWhichStatesDiffer) {
  make();
  agreement::StateDifference difference;
  difference.n = Seq{128};
  difference.path = {{0, 0}};
  difference.first = execution::state::ObjectId{12ull << 24 | (16 + 3)};
  difference.sides.push_back({{{SlotId{0}, Incarnation{1}}}, {}, true, false, SharedBytes::copy("all is well")});
  difference.sides.push_back({{{SlotId{1}, Incarnation{4}}}, {}, false, false, SharedBytes::copy("all is gone")});
  difference.sides.push_back({{{SlotId{2}, Incarnation{1}}}, {}, false, false, {}});
  const std::string data = node_data_path(cluster_, NodeId{2});
  agreement::EvidenceFiles files(agreement::evidence_path(data));
  ASSERT_TRUE(files.write("web", "http", difference));
  ZzProcess zz({"explain", "--data", data});
  EXPECT_EQ(zz.wait(), 0) << zz.err();
  EXPECT_THAT(zz.out(), HasSubstr("service \"web\", the state after batch 128, epoch 0"));
  EXPECT_THAT(zz.out(), HasSubstr("settled by g+1 equal digests"));
  EXPECT_THAT(zz.out(),
              HasSubstr("the first object that differs is 000000000c000013, inode 12: block 3, the file's bytes from "
                        "49152 on"));
  EXPECT_THAT(zz.out(), HasSubstr("its bytes differ from byte 7 on"));
  EXPECT_THAT(zz.out(), HasSubstr("slot 0 (incarnation 1), right"));
  EXPECT_THAT(zz.out(), HasSubstr("slot 1 (incarnation 4), WRONG"));
  EXPECT_THAT(zz.out(), HasSubstr("slot 2 (incarnation 1), WRONG"));
  EXPECT_THAT(zz.out(), HasSubstr("at byte 7: 676f6e65"));
  difference.sides.pop_back();
  difference.sides[0].agrees = false;
  difference.sides[1].object.reset();
  difference.sides[1].absent = difference.hung = true;
  difference.first = execution::state::ObjectId{execution::kOwnFirst | 1ull << 56 | 5};
  ASSERT_TRUE(files.write("web", "http", difference));
  ZzProcess other({"explain", "--data", data, "--batch", "128"});
  EXPECT_EQ(other.wait(), 0) << other.err();
  EXPECT_THAT(other.out(), HasSubstr("NOT DETERMINISTIC"));
  EXPECT_THAT(other.out(), HasSubstr("of the slot itself: session index page 5"));
  EXPECT_THAT(other.out(), HasSubstr("has no such object"));
  EXPECT_THAT(other.out(), Not(HasSubstr("WRONG")));
}

TEST_F(CommandLine, BenchRecoverySaysWhatItMeasuresAndWhatItTakes) {
  ZzProcess help({"bench", "recovery", "--help"});
  EXPECT_EQ(help.wait(), 0);
  for (const char* word : {"--state", "--runs", "--rate", "--outstanding", "--keys", "--fault", "--json", "first vote",
                           "right reply", "bytes_on_demand"}) {
    EXPECT_THAT(help.out(), HasSubstr(word));
  }
  EXPECT_THAT(failure({"bench", "recovery", "--fault", "tired"}), HasSubstr("--fault"));
  EXPECT_THAT(failure({"bench", "recovery", "--runs", "0"}), HasSubstr("--runs"));
}

TEST_F(CommandLine, ExplainSaysWhereItLookedAndWhatItCannotRead) {
  ZzProcess help({"explain", "--help"});
  EXPECT_EQ(help.wait(), 0);
  EXPECT_THAT(help.out(), HasSubstr("--batch"));
  EXPECT_EQ(failure({"explain"}), "zz explain: where? --dir is a cluster directory, --data a node's");
  EXPECT_THAT(failure({"explain", "--dir", cluster_, "--batch", "many"}), HasSubstr("--batch"));
  make();
  ZzProcess calm({"explain", "--dir", cluster_});
  EXPECT_EQ(calm.wait(), 0) << calm.err();
  EXPECT_EQ(calm.out(),
            fmt::format("No replies and no states differed, as far as {}/data/node-*/evidence tells.\n", cluster_));
  EXPECT_THAT(failure({"explain", "--dir", cluster_, "--batch", "9"}),
              HasSubstr(fmt::format("no evidence of batch 9 in {}/data/node-*/evidence", cluster_)));
  EXPECT_EQ(failure({"explain", "--dir", cluster_, "--service", "web"}),
            fmt::format("zz explain: no service \"web\" in {}/cluster.toml", cluster_));
  const std::string place = agreement::evidence_path(node_data_path(cluster_, NodeId{1}));
  std::filesystem::create_directories(place);
  std::ofstream(place + "/kv-1.json") << "{\"service\": 1}";
  EXPECT_EQ(failure({"explain", "--dir", cluster_}),
            fmt::format("zz explain: {}/kv-1.json: this is not evidence that zz wrote; delete the file", place));
}

TEST_F(CommandLine, InitRefusesFaultNumbersOutOfRangeAndLeavesNothing) {
  EXPECT_EQ(failure({"init", cluster_, "--f", "0"}), "zz init: f = 0 is out of range (1 to 5)");
  EXPECT_EQ(failure({"init", cluster_, "--f", "6"}), "zz init: f = 6 is out of range (1 to 5)");
  EXPECT_EQ(failure({"init", cluster_, "--g", "6"}), "zz init: g = 6 is out of range (1 to 5)");
  EXPECT_FALSE(std::filesystem::exists(cluster_));
}

TEST_F(CommandLine, InitRefusesADirectoryThatHoldsSomething) {
  make();
  EXPECT_EQ(failure({"init", cluster_}), fmt::format("zz init: {}: already holds a cluster", cluster_));
  const std::string other = directory_ / "other";
  std::filesystem::create_directory(other);
  std::ofstream(other + "/letter") << "dear";
  EXPECT_EQ(failure({"init", other}),
            fmt::format("zz init: {}: is not empty and holds no cluster; choose a new directory", other));
  EXPECT_EQ(failure({"up", other}),
            fmt::format("zz up: {}: is not empty and holds no cluster; choose a new directory", other));
  EXPECT_EQ(failure({"init", other + "/letter"}), fmt::format("zz init: {}/letter: is not a directory", other));
  EXPECT_EQ(read_text(other + "/letter"), "dear");
}

TEST_F(CommandLine, AnUnknownKeyInTheClusterFileIsNamedWithItsLine) {
  make();
  const std::ptrdiff_t line = replace("tick_ms = 5", "tock_ms = 5");
  const std::string expected = fmt::format("{}/cluster.toml:{}: unknown key \"tock_ms\" in [timing]", cluster_, line);
  for (const std::string role : {"agreement", "host"}) {
    EXPECT_EQ(failure({role, "--dir", cluster_, "--id", "0"}), fmt::format("zz {}: {}", role, expected));
  }
  EXPECT_EQ(failure({"up", cluster_}), "zz up: " + expected);
  EXPECT_EQ(failure({"status", "--dir", cluster_}), "zz status: " + expected);
}

TEST_F(CommandLine, FaultNumbersOutOfRangeInTheClusterFileAreNamedWithTheirLine) {
  make();
  const std::ptrdiff_t line = replace("f = 1 ", "f = 7 ");
  EXPECT_EQ(failure({"agreement", "--dir", cluster_, "--id", "0"}),
            fmt::format("zz agreement: {}/cluster.toml:{}: [cluster] f = 7 is out of range (1 to 5)", cluster_, line));
}

TEST_F(CommandLine, TwoSlotsOnOneHostAreRefused) {
  make();
  const std::ptrdiff_t line = replace("[[service.slot]]\nid = 2\nhost = 2", "[[service.slot]]\nid = 2\nhost = 0");
  const std::string expected = fmt::format(
      "zz host: {}/cluster.toml:{}: service \"kv\": slots 0 and 2 are on one host (0); each slot needs its own",
      cluster_, line);
  EXPECT_EQ(failure({"host", "--dir", cluster_, "--id", "0"}), expected);
  replace("local = true", "local = false");
  EXPECT_EQ(failure({"host", "--dir", cluster_, "--id", "0"}), expected);
}

TEST_F(CommandLine, TextThatIsNoTomlIsNamedWithItsLine) {
  make();
  const std::ptrdiff_t line = replace("[cluster]", "[cluster");
  EXPECT_THAT(failure({"agreement", "--dir", cluster_, "--id", "0"}),
              StartsWith(fmt::format("zz agreement: {}/cluster.toml:{}: ", cluster_, line)));
}

TEST_F(CommandLine, AKeyFileThatOthersCouldReadIsRefused) {
  make();
  ASSERT_EQ(::chmod((cluster_ + "/keys/node-0.key").c_str(), 0644), 0);
  EXPECT_EQ(failure({"agreement", "--dir", cluster_, "--id", "0"}),
            fmt::format("zz agreement: {}/keys/node-0.key: key file has mode 0644, others could read it; run chmod 600 "
                        "on it",
                        cluster_));
}

TEST_F(CommandLine, AKeyThatIsNotThePartysIsRefused) {
  make();
  std::filesystem::rename(cluster_ + "/keys/node-1.key", cluster_ + "/keys/node-0.key");
  EXPECT_THAT(failure({"agreement", "--dir", cluster_, "--id", "0"}),
              HasSubstr("keys/node-0.key is not the key that cluster.toml names for node 0"));
}

TEST_F(CommandLine, ANodeThatTheFileDoesNotNameIsRefused) {
  make();
  EXPECT_THAT(failure({"agreement", "--dir", cluster_, "--id", "4"}), HasSubstr("cluster.toml has no node 4"));
}

// Listens on an address until it is gone.
class Squatter {
 public:
  explicit Squatter(std::uint16_t port) : fd_(::socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0)) {
    sockaddr_in address{};
    address.sin_family = AF_INET;
    address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    address.sin_port = htons(port);
    socklen_t size = sizeof address;
    auto* const generic = reinterpret_cast<sockaddr*>(&address);
    EXPECT_EQ(::bind(fd_, generic, size), 0);
    EXPECT_EQ(::listen(fd_, 1), 0);
    EXPECT_EQ(::getsockname(fd_, generic, &size), 0);
    port_ = ntohs(address.sin_port);
  }
  ~Squatter() { ::close(fd_); }
  Squatter(const Squatter&) = delete;
  Squatter& operator=(const Squatter&) = delete;
  [[nodiscard]] std::uint16_t port() const { return port_; }

 private:
  int fd_;
  std::uint16_t port_ = 0;
};

TEST_F(CommandLine, APortInUseIsNamed) {
  make();
  const auto cluster = crypto::load_cluster(cluster_ + "/cluster.toml");
  ASSERT_TRUE(cluster.ok()) << cluster.error();
  const crypto::Address address = cluster->nodes[0].address;
  const Squatter squatter(address.port);
  const std::string error = failure({"agreement", "--dir", cluster_, "--id", "0"}, 0);
  EXPECT_THAT(error, StartsWith("zz agreement: "));
  EXPECT_THAT(error, HasSubstr(crypto::to_string(address)));
  EXPECT_THAT(error, HasSubstr("in use"));
  const std::string whole = failure({"up", cluster_});
  EXPECT_THAT(whole, StartsWith("zz up: node-0 ended with status 1: zz agreement: "));
  EXPECT_THAT(whole, HasSubstr(crypto::to_string(address)));
  EXPECT_EQ(test::await_no_process(cluster_), 0u);
}

TEST_F(CommandLine, AGatewayPortInUseIsNamed) {
  const Squatter squatter(0);
  const std::string address = fmt::format("127.0.0.1:{}", squatter.port());
  const std::string error =
      failure({"up", cluster_, "--listen", address, "--", "/usr/bin/python3", "-m", "http.server", "$PORT"});
  EXPECT_THAT(error, StartsWith("zz up: gateway-web ended with status 1: zz gateway: "));
  EXPECT_THAT(error, HasSubstr(address));
  EXPECT_THAT(error, HasSubstr("in use"));
  EXPECT_EQ(test::await_no_process(cluster_), 0u);
}

TEST_F(CommandLine, AServiceThatCannotBeExecutedIsNamed) {
  const std::string error = failure({"up", cluster_, "--listen", "127.0.0.1:0", "--", "/no/such/program"});
  EXPECT_THAT(error, StartsWith("zz up: "));
  EXPECT_THAT(error, HasSubstr("service \"web\""));
  EXPECT_THAT(error, HasSubstr("/no/such/program"));
  EXPECT_THAT(error, HasSubstr("No such file or directory"));
  EXPECT_EQ(test::await_no_process(cluster_), 0u);
}

TEST_F(CommandLine, AServiceThatEndsAtOnceIsNamed) {
  const std::string error = failure({"up", cluster_, "--listen", "127.0.0.1:0", "--", "/bin/false"});
  EXPECT_THAT(error, StartsWith("zz up: "));
  EXPECT_THAT(error, HasSubstr("service \"web\""));
  EXPECT_THAT(error, HasSubstr("/bin/false"));
  EXPECT_EQ(test::await_no_process(cluster_), 0u);
}

TEST_F(CommandLine, UpRefusesToRunAnotherServiceThanTheDirectoryIsFor) {
  make({"--", "/usr/bin/python3", "-m", "http.server", "$PORT"});
  EXPECT_EQ(failure({"up", cluster_, "--", "/bin/other"}),
            fmt::format("zz up: {}: holds a cluster with another command; run it as it is, or choose another directory",
                        cluster_));
  EXPECT_EQ(failure({"up", cluster_, "--f", "2"}),
            fmt::format("zz up: {}: holds a cluster with another --f; run it as it is, or choose another directory",
                        cluster_));
}

TEST_F(CommandLine, UpRefusesAListenAddressThatIsNone) {
  EXPECT_EQ(failure({"up", cluster_, "--listen", "8080", "--", "/bin/true"}),
            "zz up: --listen 8080 is not ADDRESS:PORT");
  EXPECT_EQ(failure({"up", cluster_, "--listen", "127.0.0.1:8080"}),
            "zz up: --listen needs a web service: give its command after --");
  EXPECT_FALSE(std::filesystem::exists(cluster_));
}

TEST_F(CommandLine, StatusOfAClusterThatDoesNotRunIsAnError) {
  make();
  EXPECT_THAT(failure({"status", "--dir", cluster_}), HasSubstr("no agreement node of"));
  EXPECT_THAT(failure({"status", "--dir", cluster_, "--json"}), HasSubstr("is the cluster running?"));
}

}  // namespace
}  // namespace zz::apps
