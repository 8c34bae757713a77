// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstdint>
#include <functional>
#include <map>
#include <memory>
#include <string>
#include <vector>

#include "base/clock.hpp"
#include "server/admission.hpp"
#include "server/enrolment.hpp"
#include "server/listener.hpp"
#include "server/options.hpp"
#include "server/own_certificate.hpp"
#include "server/replica.hpp"
#include "server/session.hpp"
#include "server/worker_pool.hpp"
#include "store/store.hpp"
#include "tls/context.hpp"

namespace blkferry::server {

class Control;

/// The replication server: listener → sessions → replicas, one store, one loop. All members belong to the loop's thread.
/// Destroying it without stop() is a crash as far as the store can tell: the next start resumes.
class Server final : public SessionHost {
public:
    struct Counters {
        std::uint64_t accepted = 0;
        std::uint64_t refused_admission = 0;  ///< by a limit of connections
        std::uint64_t refused_tls = 0;        ///< TLS handshake failed
        std::uint64_t refused_floods = 0;     ///< of these and of strangers: TLS messages without end
        std::uint64_t refused_frames = 0;     ///< sessions ended by an ERROR of this end
        std::uint64_t accept_pauses = 0;
    };

    /// Opens the store, loads the certificates, listens, and begins to open every source's store in the background.
    /// `loop`, `clock` and `log` outlive it.
    [[nodiscard]] static Result<std::unique_ptr<Server>> create(loop::Loop& loop, const Clock& clock, Log& log,
                                                                ServerOptions options);
    ~Server() override;

    /// Closes the sessions, lets the running jobs end, checkpoints; then calls `done`.
    void stop(std::move_only_function<void()> done);
    /// Reads certificates and CRL again; sessions that live go on.
    [[nodiscard]] Result<void> reload_tls();
    /// Takes other options: those that config::take_over() lets a reload change; all others must be as in options().
    /// Certificates are read again. On an error nothing changes.
    [[nodiscard]] Result<void> reconfigure(const ServerOptions& fresh);

    [[nodiscard]] const std::vector<std::uint16_t>& ports() const noexcept { return listener_->ports(); }
    [[nodiscard]] const std::map<std::string, std::shared_ptr<Replica>>& replicas() const noexcept { return replicas_; }
    /// When a source went for good, milliseconds since 1970; 0: it did not.
    [[nodiscard]] std::uint64_t retired_ms(const std::string& source) const;
    [[nodiscard]] const Counters& counters() const noexcept { return counters_; }
    [[nodiscard]] const Admission& admission() const noexcept { return admission_; }
    [[nodiscard]] std::size_t sessions() const noexcept { return sessions_.size(); }
    [[nodiscard]] const ServerOptions& options() const noexcept { return options_; }
    [[nodiscard]] const tls::TlsContext& tls() const noexcept { return tls_; }
    [[nodiscard]] const OwnCertificate& own_certificate() const noexcept { return own_; }
    [[nodiscard]] const Clock& clock() const noexcept { return around_.clock; }
    [[nodiscard]] store::Store& store() noexcept { return *store_; }
    /// Free bytes of the store's file system at the last look.
    [[nodiscard]] std::uint64_t free_bytes() const noexcept { return free_bytes_; }
    /// For work that reads whole points: one thread, so that it does not take turns away from applying.
    [[nodiscard]] WorkerPool& readers() noexcept { return readers_; }
    /// For what only lists folders: soon done, also while a point is read.
    [[nodiscard]] WorkerPool& lookups() noexcept { return lookups_; }
    /// The CA of the sources, or nullptr; its members are called by jobs of the pool below.
    [[nodiscard]] Enrolment* enrolment() noexcept { return enrolment_.get(); }
    [[nodiscard]] WorkerPool& enrolment_pool() noexcept { return *enrolment_pool_; }
    /// Reads the revocation list and ends the sessions whose certificates are in it; gives the number of them.
    [[nodiscard]] Result<std::size_t> enforce_revocation();
    [[nodiscard]] loop::Loop& loop() noexcept { return loop_; }
    /// What a `reload` command does; answers (changed, needs restart). Unset: only certificates.
    std::move_only_function<Result<std::pair<std::vector<std::string>, std::vector<std::string>>>()> on_reload;

private:
    struct Live {
        std::unique_ptr<Session> session;
        std::shared_ptr<Replica> replica;  ///< set by HELLO
        bool certifying = false;           ///< a CERT_REQUEST of it is with the worker
        bool answered = false;             ///< a stranger that got its answer
    };

    Server(loop::Loop& loop, const Clock& clock, Log& log, ServerOptions options, tls::TlsContext tls,
           std::shared_ptr<store::Store> store);
    [[nodiscard]] Result<void> begin();
    void accepted(Accepted connection);
    bool drop_oldest_stranger();
    void refused(const std::string& peer, const Error& why);
    void tick();
    void look_at_disk();
    void maybe_stopped();
    [[nodiscard]] Result<void> retire(Live& live);
    void retired(std::uint64_t id, const std::string& source, const Result<std::uint64_t>& when);
    void read_retired(const std::vector<std::string>& sources);
    void forget_retired(const std::string& source);
    [[nodiscard]] Result<void> certificate_request(Live& live, const proto::FrameReader::View& view);
    void certificate_reply(std::uint64_t id, const proto::CertReply& reply);
    std::size_t end_revoked();
    [[nodiscard]] Result<void> begin_enrolment();
    [[nodiscard]] Result<void> look_at_own_certificate();
    void certificate_tick();
    void certificate_renewed(Result<void> result);
    [[nodiscard]] Result<void> first_frame(Live& live, const proto::FrameReader::View& view);

    [[nodiscard]] Result<void> on_frame(Session& session, const proto::FrameReader::View& view) override;
    void on_drained(Session& session) override;
    void on_ended(Session& session, const Error& why) override;
    [[nodiscard]] std::span<std::byte> read_buffer() override { return buffer_; }

    loop::Loop& loop_;
    Log& log_;
    ServerOptions options_;
    tls::TlsContext tls_;
    std::shared_ptr<store::Store> store_;
    WorkerPool readers_;
    WorkerPool lookups_;
    WorkerPool workers_;
    Surroundings around_;
    Admission admission_;
    std::vector<std::byte> buffer_;
    std::map<std::string, std::shared_ptr<Replica>> replicas_;
    std::map<std::uint64_t, Live> sessions_;
    std::uint64_t next_session_ = 1;
    std::unique_ptr<Enrolment> enrolment_;
    std::unique_ptr<WorkerPool> enrolment_pool_;  ///< its jobs use enrolment_
    std::uint64_t enrolment_swept_ns_ = 0;
    OwnCertificate own_;
    std::map<std::string, std::uint64_t> retired_;
    std::unique_ptr<Listener> listener_;
    std::unique_ptr<Control> control_;
    loop::Timer tick_;
    Counters counters_;
    std::uint64_t free_bytes_ = 0;
    std::uint64_t refusal_window_ns_ = 0;
    unsigned refusals_logged_ = 0;
    std::uint64_t refusals_dropped_ = 0;
    bool stopping_ = false;
    std::size_t replicas_open_ = 0;
    std::move_only_function<void()> stopped_;
    std::shared_ptr<bool> alive_ = std::make_shared<bool>(true);
};

}  // namespace blkferry::server
