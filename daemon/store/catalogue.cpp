// SPDX-License-Identifier: Apache-2.0
#include "store/catalogue.hpp"

#include <fmt/format.h>
#include <sqlite3.h>

#include "store/statement.hpp"

namespace blkferry::store {

namespace {

constexpr std::uint64_t schema_version = 1;

constexpr const char* schema = R"(
create table if not exists source(
    name text primary key, source_id text not null, batch integer not null, mark integer not null,
    mark_time_ns integer not null, generation integer not null, position integer not null,
    checkpoint_ns integer not null) without rowid;
create table if not exists disk(
    source text not null references source(name) on delete cascade, slot integer not null, disk_id text not null,
    name text not null, identity text not null, sectors integer not null, present integer not null,
    synced integer not null, primary key(source, slot)) without rowid;
create table if not exists epoch(
    source text not null references source(name) on delete cascade, slot integer not null, seq0 integer not null,
    ended integer not null, ok integer not null, text text not null, primary key(source, slot)) without rowid;
create table if not exists point(
    source text not null, serial integer not null, name text not null, mark integer not null,
    mark_time_ns integer not null, made_ns integer not null, kind text not null, launchable text not null,
    hash text not null, primary key(source, serial), unique(source, name)) without rowid;
)";

std::uint64_t flag(bool value) noexcept {
    return value ? 1 : 0;
}

}  // namespace

Catalogue::~Catalogue() {
    sqlite3_close(db_);
}

Result<void> Catalogue::execute(const char* sql) {
    char* message = nullptr;
    const int code = sqlite3_exec(db_, sql, nullptr, nullptr, &message);
    const std::string text = message != nullptr ? message : sqlite3_errstr(code);
    sqlite3_free(message);
    if (code == SQLITE_OK)
        return {};
    const bool damaged = code == SQLITE_CORRUPT || code == SQLITE_NOTADB;
    return fail(damaged ? Errc::corrupt : code == SQLITE_FULL ? Errc::no_space : Errc::io, fmt::format("catalogue: {}", text));
}

Result<std::unique_ptr<Catalogue>> Catalogue::open(const std::filesystem::path& path) {
    sqlite3* db = nullptr;
    const int code = sqlite3_open_v2(path.c_str(), &db,
                                     SQLITE_OPEN_READWRITE | SQLITE_OPEN_CREATE | SQLITE_OPEN_NOMUTEX | SQLITE_OPEN_NOFOLLOW,
                                     nullptr);
    std::unique_ptr<Catalogue> catalogue(new Catalogue(db));
    if (code != SQLITE_OK)
        return fail(Errc::io, fmt::format("cannot open the catalogue {}: {}", path.string(), sqlite3_errstr(code)));
    sqlite3_busy_timeout(db, 5000);
    BLKFERRY_TRY(catalogue->execute("pragma journal_mode=wal; pragma synchronous=full; pragma foreign_keys=on;"));
    std::uint64_t version = 0;
    {
        BLKFERRY_TRY_ASSIGN(Statement check, Statement::prepare(db, "pragma quick_check(1)"));
        BLKFERRY_TRY_ASSIGN(const bool row, check.step());
        if (!row || check.text(0) != "ok")
            return fail(Errc::corrupt, fmt::format("the catalogue {} is damaged: rebuild it", path.string()));
        BLKFERRY_TRY_ASSIGN(Statement read, Statement::prepare(db, "pragma user_version"));
        BLKFERRY_TRY_ASSIGN(const bool found, read.step());
        version = found ? read.integer(0) : 0;
    }
    if (version == 0) {
        BLKFERRY_TRY(catalogue->execute(schema));
        BLKFERRY_TRY(catalogue->execute(fmt::format("pragma user_version={}", schema_version).c_str()));
    } else if (version != schema_version) {
        return fail(Errc::corrupt, fmt::format("the catalogue {} has version {}, this program uses {}: rebuild it",
                                               path.string(), version, schema_version));
    }
    return catalogue;
}

template <class F>
Result<void> Catalogue::transaction(F&& body) {
    const std::scoped_lock guard(lock_);
    BLKFERRY_TRY(execute("begin immediate"));
    auto r = body();
    if (r)
        r = execute("commit");
    if (!r)
        (void)execute("rollback");
    return r;
}

Result<void> Catalogue::put_checkpoint(std::string_view source, const Checkpoint& c, std::uint64_t now_ns) {
    return transaction([&]() -> Result<void> {
        BLKFERRY_TRY_ASSIGN(Statement put, Statement::prepare(db_,
                                "insert into source values(?,?,?,?,?,?,?,?) on conflict(name) do update set "
                                "source_id=excluded.source_id, batch=excluded.batch, mark=excluded.mark, "
                                "mark_time_ns=excluded.mark_time_ns, generation=excluded.generation, "
                                "position=excluded.position, checkpoint_ns=excluded.checkpoint_ns"));
        BLKFERRY_TRY(put.bind(source).bind(c.table.source_id.str()).bind(c.batch).bind(c.mark).bind(c.mark_time_ns)
                         .bind(c.generation).bind(c.position).bind(now_ns).run());
        BLKFERRY_TRY_ASSIGN(Statement clear, Statement::prepare(db_, "delete from epoch where source=?"));
        BLKFERRY_TRY(clear.bind(source).run());
        for (const auto& [slot, d] : c.table.disks()) {
            const std::string id = d.info.disk_id.str();
            BLKFERRY_TRY_ASSIGN(Statement disk, Statement::prepare(db_, "insert or replace into disk values(?,?,?,?,?,?,?,?)"));
            BLKFERRY_TRY(disk.bind(source).bind(std::uint64_t{slot}).bind(id).bind(d.info.name).bind(d.info.identity)
                             .bind(d.info.sectors).bind(flag(d.present)).bind(flag(d.synced)).run());
            if (!d.epoch && !d.last)
                continue;
            BLKFERRY_TRY_ASSIGN(Statement epoch, Statement::prepare(db_, "insert into epoch values(?,?,?,?,?,?)"));
            BLKFERRY_TRY(epoch.bind(source).bind(std::uint64_t{slot}).bind(d.epoch ? d.epoch->begin.seq0 : d.last->seq0)
                             .bind(flag(!d.epoch)).bind(flag(!d.epoch && d.last->ok))
                             .bind(d.epoch ? std::string_view() : std::string_view(d.last->text)).run());
        }
        return {};
    });
}

Result<void> Catalogue::insert_point(const Manifest& m) {
    BLKFERRY_TRY_ASSIGN(Statement put, Statement::prepare(db_, "insert or replace into point values(?,?,?,?,?,?,?,?,?)"));
    const std::string hash = m.hash();
    return put.bind(m.source).bind(m.serial).bind(m.name).bind(m.mark).bind(m.mark_time_ns).bind(m.made_ns)
        .bind(to_string(m.kind)).bind(to_string(m.launchable)).bind(hash).run();
}

Result<void> Catalogue::put_point(const Manifest& m) {
    return transaction([&] { return insert_point(m); });
}

Result<void> Catalogue::put_points(std::string_view source, const std::vector<Manifest>& manifests) {
    return transaction([&]() -> Result<void> {
        BLKFERRY_TRY_ASSIGN(Statement clear, Statement::prepare(db_, "delete from point where source=?"));
        BLKFERRY_TRY(clear.bind(source).run());
        for (const Manifest& m : manifests)
            BLKFERRY_TRY(insert_point(m));
        return {};
    });
}

Result<void> Catalogue::remove_point(std::string_view source, std::string_view name) {
    return transaction([&]() -> Result<void> {
        BLKFERRY_TRY_ASSIGN(Statement drop, Statement::prepare(db_, "delete from point where source=? and name=?"));
        return drop.bind(source).bind(name).run();
    });
}

Result<void> Catalogue::remove_source(std::string_view source) {
    return transaction([&]() -> Result<void> {
        BLKFERRY_TRY_ASSIGN(Statement points, Statement::prepare(db_, "delete from point where source=?"));
        BLKFERRY_TRY(points.bind(source).run());
        BLKFERRY_TRY_ASSIGN(Statement drop, Statement::prepare(db_, "delete from source where name=?"));
        return drop.bind(source).run();
    });
}

Result<std::vector<Catalogue::SourceRow>> Catalogue::sources() {
    const std::scoped_lock guard(lock_);
    BLKFERRY_TRY_ASSIGN(Statement q, Statement::prepare(db_, "select name, source_id, batch, mark, mark_time_ns, generation, "
                                                             "position, checkpoint_ns from source order by name"));
    std::vector<SourceRow> out;
    for (;;) {
        BLKFERRY_TRY_ASSIGN(const bool row, q.step());
        if (!row)
            return out;
        BLKFERRY_TRY_ASSIGN(const Uuid id, Uuid::parse(q.text(1)));
        out.push_back({q.text(0), id, q.integer(2), q.integer(3), q.integer(4), q.integer(5), q.integer(6), q.integer(7)});
    }
}

Result<std::vector<Catalogue::DiskRow>> Catalogue::disks(std::string_view source) {
    const std::scoped_lock guard(lock_);
    BLKFERRY_TRY_ASSIGN(Statement q, Statement::prepare(db_, "select slot, disk_id, name, identity, sectors, present, synced "
                                                             "from disk where source=? order by slot"));
    q.bind(source);
    std::vector<DiskRow> out;
    for (;;) {
        BLKFERRY_TRY_ASSIGN(const bool row, q.step());
        if (!row)
            return out;
        BLKFERRY_TRY_ASSIGN(const Uuid id, Uuid::parse(q.text(1)));
        out.push_back({static_cast<std::uint16_t>(q.integer(0)), id, q.text(2), q.text(3), q.integer(4), q.integer(5) != 0,
                       q.integer(6) != 0});
    }
}

Result<std::vector<Catalogue::EpochRow>> Catalogue::epochs(std::string_view source) {
    const std::scoped_lock guard(lock_);
    BLKFERRY_TRY_ASSIGN(Statement q, Statement::prepare(db_, "select slot, seq0, ended, ok, text from epoch where source=? "
                                                             "order by slot"));
    q.bind(source);
    std::vector<EpochRow> out;
    for (;;) {
        BLKFERRY_TRY_ASSIGN(const bool row, q.step());
        if (!row)
            return out;
        out.push_back({static_cast<std::uint16_t>(q.integer(0)), q.integer(1), q.integer(2) != 0, q.integer(3) != 0, q.text(4)});
    }
}

Result<std::vector<Catalogue::PointRow>> Catalogue::points(std::string_view source) {
    const std::scoped_lock guard(lock_);
    BLKFERRY_TRY_ASSIGN(Statement q, Statement::prepare(db_, "select serial, name, mark, mark_time_ns, made_ns, kind, "
                                                             "launchable, hash from point where source=? order by serial"));
    q.bind(source);
    std::vector<PointRow> out;
    for (;;) {
        BLKFERRY_TRY_ASSIGN(const bool row, q.step());
        if (!row)
            return out;
        out.push_back({q.integer(0), q.text(1), q.integer(2), q.integer(3), q.integer(4), q.text(5), q.text(6), q.text(7)});
    }
}

}  // namespace blkferry::store
