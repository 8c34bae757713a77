// SPDX-License-Identifier: Apache-2.0
#include <cstdio>
#include <filesystem>
#include <fstream>
#include <string>
#include <vector>

#include "proto/batch.hpp"
#include "proto/control.hpp"
#include "proto/enrolment.hpp"
#include "proto/frame.hpp"
#include "proto/handshake.hpp"
#include "proto/hashing.hpp"

/// Writes the seed corpora of the fuzz targets frame, handshake and batch: fuzz_make_corpus tests/fuzz/corpus
using namespace blkferry;
using namespace blkferry::proto;

namespace {

using Bytes = std::vector<std::byte>;

Uuid uuid(std::uint8_t fill) {
    Uuid u;
    u.bytes.fill(fill);
    return u;
}

template <class M>
Bytes body_of(const M& m) {
    Bytes out;
    encode(m, out);
    return out;
}

void save(const std::filesystem::path& path, const Bytes& data) {
    std::filesystem::create_directories(path.parent_path());
    std::ofstream file(path, std::ios::binary);
    file.write(reinterpret_cast<const char*>(data.data()), static_cast<std::streamsize>(data.size()));
    if (!file) {
        std::fprintf(stderr, "cannot write %s\n", path.c_str());
        std::exit(1);
    }
}

Bytes extents_body() {
    const std::vector<ExtentEntry> entries{{.slot = 0, .kind = ExtentKind::data, .extent = {8, 1}},
                                           {.slot = 1, .kind = ExtentKind::resync_zero, .extent = {64, 8}},
                                           {.slot = 0, .kind = ExtentKind::resync_data, .extent = {16, 1}}};
    Bytes body;
    encode_extents_head(entries, body);
    body.resize(body.size() + 1024, std::byte{0x42});
    return body;
}

Hello hello() {
    Hello m;
    m.agent_version = "0.1.0";
    m.source = "web-1";
    m.source_id = uuid(1);
    m.load_id = uuid(2);
    m.features = {"x"};
    m.disks = {{.slot = 0, .disk_id = uuid(3), .name = "vda", .identity = "Q", .sectors = 8192, .attach_id = uuid(4)}};
    return m;
}

Welcome welcome() {
    Welcome m;
    m.server_version = "0.1.0";
    m.session = 1;
    m.window_bytes = 4096;
    m.disks = {{.slot = 0, .known = true, .attach_id = uuid(4), .synced = false, .epoch_seq = 5}};
    return m;
}

void batches(const std::filesystem::path& dir) {
    const std::vector<std::pair<std::string, Bytes>> bodies{
        {"extents", extents_body()},
        {"batch_begin", body_of(BatchBegin{.prev_mark = 1, .mark = 2, .time_ns = 3})},
        {"epoch_begin", body_of(EpochBegin{.slot = 0, .kind = EpochKind::gap, .block_shift = 12, .seq0 = 1, .sectors = 2, .digest = 3})},
        {"epoch_end", body_of(EpochEnd{.slot = 0, .seq0 = 1, .sectors = 2, .digest = 3})},
        {"point_request", body_of(PointRequest{.request = 1, .kind = PointKind::fs, .name = "nightly"})},
        {"batch_end", body_of(BatchEnd{.extents = 1, .consistent = true, .payload_bytes = 512, .sectors = 1, .digest = 2})},
        {"ack", body_of(Ack{.batch = 1, .mark = 2, .window_bytes = 3})},
        {"epoch_result", body_of(EpochResult{.slot = 0, .ok = false, .seq0 = 1, .text = "no"})},
        {"point_result", body_of(PointResult{.request = 1, .mark = 2, .ok = true, .name = "p", .text = ""})},
        {"hash_ask", body_of(HashAsk{.request = 1, .slot = 0, .block_bytes = 4096, .sector = 8, .hashes = {sha256({})}})},
        {"hash_reply", body_of(HashReply{.request = 1, .differs = {true, false, true}})},
    };
    for (std::size_t i = 0; i < bodies.size(); ++i) {
        Bytes data = bodies[i].second;
        data.insert(data.begin(), static_cast<std::byte>(i));
        save(dir / bodies[i].first, data);
    }
}

void frames(const std::filesystem::path& dir) {
    const Bytes text(3000, std::byte{'a'});
    for (const Codec codec : {Codec::none, Codec::lz4, Codec::zstd}) {
        Compressor compressor(codec, 1);
        for (const int first : {0x00, 0x01, 0x40, 0xff}) {
            Bytes data{static_cast<std::byte>(first)};
            encode_frame(FrameType::hello, 0, 0, body_of(hello()), nullptr, data);
            encode_frame(FrameType::batch_begin, 1, 0, body_of(BatchBegin{}), &compressor, data);
            encode_frame(FrameType::extents, 1, 1, text, &compressor, data);
            encode_frame(FrameType::batch_end, 1, 2, body_of(BatchEnd{}), nullptr, data);
            save(dir / (std::string(to_string(codec)) + "_" + std::to_string(first)), data);
        }
    }
}

}  // namespace

int main(int argc, char** argv) {
    if (argc != 2) {
        std::fprintf(stderr, "usage: fuzz_make_corpus FOLDER\n");
        return 2;
    }
    const std::filesystem::path root = argv[1];
    batches(root / "batch");
    frames(root / "frame");
    save(root / "handshake" / "hello", body_of(hello()));
    save(root / "handshake" / "welcome", body_of(welcome()));
    save(root / "handshake" / "heartbeat", body_of(Heartbeat{.state = "CONTINUOUS", .cause = ""}));
    save(root / "handshake" / "error", body_of(PeerError{.code = "denied", .text = "no"}));
    const Token token{std::string(token_id_bytes, 'a'), std::string(token_secret_bytes, '1'), std::string(fingerprint_bytes, 'f')};
    save(root / "handshake" / "cert_request", body_of(CertRequest{.source = "web1", .csr = "pem", .token_id = token.id,
                                                                  .token_secret = token.secret, .agent_version = "0.1.0"}));
    save(root / "handshake" / "cert_reply", body_of(CertReply{.code = "", .text = "", .cert = "pem", .ca = "pem", .server = "replica"}));
    const std::string text = token.str();
    const auto raw = std::as_bytes(std::span(text));
    save(root / "handshake" / "token", Bytes(raw.begin(), raw.end()));
    return 0;
}
