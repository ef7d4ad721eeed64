#include "ptx/decode.h"

#include <algorithm>
#include <charconv>
#include <optional>
#include <utility>

namespace ptx {

std::string_view trimmed(std::string_view s) {
  const auto begin = s.find_first_not_of(" \t\n\r");
  if (begin == std::string_view::npos) return {};
  return s.substr(begin, s.find_last_not_of(" \t\n\r") - begin + 1);
}

Parts cut(std::string_view s, char separator) {
  Parts parts;
  int depth = 0;
  std::size_t begin = 0;
  for (std::size_t i = 0; i <= s.size(); ++i) {
    const char c = i < s.size() ? s[i] : separator;
    if (c == '{' || c == '[') ++depth;
    if (c == '}' || c == ']') --depth;
    if (i == s.size() || (c == separator && depth == 0)) {
      parts.push_back(trimmed(s.substr(begin, i - begin)));
      begin = i + 1;
    }
  }
  return parts;
}

int Names::find_register(std::string_view name) const {
  for (auto scope = scopes.rbegin(); scope != scopes.rend(); ++scope) {
    if (const auto found = scope->find(std::string(name)); found != scope->end()) return found->second;
  }
  return -1;
}

namespace {

bool has(const Parts& parts, std::string_view wanted) {
  return std::find(parts.begin(), parts.end(), wanted) != parts.end();
}

std::optional<Type> type_named(std::string_view s) {
  if (s == "pred") return Type{Kind::pred, 1};
  if (s == "bf16") return Type{Kind::bfloat, 16};
  if (s == "tf32") return Type{Kind::real, 32};
  if (s.size() < 2 || s.find_first_not_of("0123456789", 1) != std::string_view::npos) return std::nullopt;
  const int bits = std::stoi(std::string(s.substr(1)));
  if (bits != 8 && bits != 16 && bits != 32 && bits != 64) return std::nullopt;
  switch (s[0]) {
    case 'b':
      return Type{Kind::bits, bits};
    case 'u':
      return Type{Kind::natural, bits};
    case 's':
      return Type{Kind::whole, bits};
    case 'f':
      return Type{Kind::real, bits};
    default:
      return std::nullopt;
  }
}

std::vector<Type> types_in(const Parts& parts) {
  std::vector<Type> types;
  for (std::size_t i = 1; i < parts.size(); ++i) {
    if (const auto type = type_named(parts[i])) types.push_back(*type);
  }
  return types;
}

class Decoder {
 public:
  Decoder(Instruction& instruction, const Names& names) : i(instruction), names_(names) {}

  void run(std::string_view s) {
    const auto space = s.find_first_of(" \t\n");
    const std::string_view name = s.substr(0, space);
    Parts parts;
    for (std::size_t begin = 0; begin <= name.size();) {
      const auto dot = std::min(name.find('.', begin), name.size());
      parts.push_back(name.substr(begin, dot - begin));
      begin = dot + 1;
    }
    const std::string_view rest = space == std::string_view::npos ? "" : trimmed(s.substr(space));
    decode(name, parts, rest.empty() ? Parts{} : cut(rest, ','));
  }

 private:
  [[noreturn]] void fail(const std::string& expected, std::string_view got) const {
    throw Fault("PTX line " + std::to_string(i.line) + ": expected " + expected + ", got " +
                std::string(got));
  }

  Operand operand(std::string_view s) {
    using Is = Operand::Is;
    if (s == "_") return {};
    static const std::map<std::string_view, Is> special = {
        {"%tid.x", Is::tid},       {"%ntid.x", Is::ntid}, {"%ctaid.x", Is::ctaid},
        {"%nctaid.x", Is::nctaid}, {"%laneid", Is::lane}, {"%cluster_ctarank", Is::rank}};
    if (const auto found = special.find(s); found != special.end()) return {found->second};
    if (const int reg = names_.find_register(s); reg >= 0) return {Is::reg, reg};
    if (const auto found = names_.symbols.find(s); found != names_.symbols.end())
      return {Is::number, -1, found->second};
    return {Is::number, -1, number(s)};
  }

  std::uint64_t number(std::string_view s) {
    if (s.starts_with("0f") || s.starts_with("0d") || s.starts_with("0x")) {
      std::uint64_t bits = 0;
      const auto [end, error] = std::from_chars(s.data() + 2, s.data() + s.size(), bits, 16);
      if (error != std::errc{} || end != s.data() + s.size()) fail("a number", s);
      return bits;
    }
    std::int64_t value = 0;
    const auto [end, error] = std::from_chars(s.data(), s.data() + s.size(), value);
    if (error == std::errc{} && end == s.data() + s.size()) return static_cast<std::uint64_t>(value);
    std::uint64_t large = 0;
    const auto [last, too_large] = std::from_chars(s.data(), s.data() + s.size(), large);
    if (too_large != std::errc{} || last != s.data() + s.size()) fail("a register or a number", s);
    return large;
  }

  std::vector<Operand> operands(std::string_view s) {
    if (!s.starts_with('{')) return {operand(s)};
    std::vector<Operand> found;
    for (const std::string_view one : cut(s.substr(1, s.size() - 2), ',')) found.push_back(operand(one));
    return found;
  }

  /// [register+offset]
  void address(std::string_view s) {
    if (!s.starts_with('[') || !s.ends_with(']')) fail("an address", s);
    s = trimmed(s.substr(1, s.size() - 2));
    const auto plus = s.find('+');
    if (plus != std::string_view::npos)
      i.offset = static_cast<std::int64_t>(number(trimmed(s.substr(plus + 1))));
    i.of.push_back(operand(trimmed(s.substr(0, plus))));
  }

  /// One result, then sources.
  void plain(const Parts& arguments, std::size_t sources, std::string_view name) {
    if (arguments.size() != sources + 1)
      fail(std::to_string(sources + 1) + " operands of " + std::string(name),
           std::to_string(arguments.size()));
    i.to = operands(arguments[0]);
    for (std::size_t a = 1; a < arguments.size(); ++a) i.of.push_back(operand(arguments[a]));
  }

  void decode(std::string_view name, const Parts& parts, const Parts& arguments) {
    const std::string_view root = parts[0];
    const std::vector<Type> types = types_in(parts);
    if (!types.empty()) i.type = i.from = types.back();
    i.saturate = has(parts, "sat");
    const bool clamped = i.saturate && root != "cvt";
    if (has(parts, "ftz") || has(parts, "approx") || clamped) fail("exact arithmetic", name);

    static const std::map<std::string_view, std::pair<Op, std::size_t>> arithmetic = {
        {"add", {Op::add, 2}},     {"sub", {Op::sub, 2}},   {"div", {Op::div, 2}},
        {"rem", {Op::rem, 2}},     {"min", {Op::min, 2}},   {"max", {Op::max, 2}},
        {"neg", {Op::neg, 1}},     {"abs", {Op::abs, 1}},   {"not", {Op::bit_not, 1}},
        {"and", {Op::bit_and, 2}}, {"or", {Op::bit_or, 2}}, {"xor", {Op::bit_xor, 2}},
        {"shl", {Op::shl, 2}},     {"shr", {Op::shr, 2}},   {"fma", {Op::fma, 3}},
        {"bfi", {Op::bfi, 4}},     {"bfe", {Op::bfe, 3}},   {"prmt", {Op::prmt, 3}},
        {"lop3", {Op::lop3, 4}},   {"dp4a", {Op::dp4a, 3}}, {"selp", {Op::selp, 3}},
        {"cvta", {Op::cvta, 1}},   {"mapa", {Op::mapa, 2}}};
    if (const auto found = arithmetic.find(root); found != arithmetic.end()) {
      i.op = found->second.first;
      if (root == "fma" && !has(parts, "rn")) fail("rounding to nearest", name);
      if (root == "div" && i.type.kind == Kind::real && !has(parts, "rn")) fail("rounding to nearest", name);
      if (root == "prmt" && parts.size() != 2) fail("prmt.b32 without a mode", name);
      if (root == "cvta" && !(has(parts, "to") && has(parts, "global"))) fail("cvta.to.global", name);
      if (root == "mapa" && !has(parts, "shared::cluster")) fail("mapa.shared::cluster", name);
      if (root == "dp4a")
        i.left_natural = types[0].kind == Kind::natural, i.right_natural = types[1].kind == Kind::natural;
      return plain(arguments, found->second.second, name);
    }
    if (root == "mul" || root == "mad") {
      const bool real = i.type.kind == Kind::real;
      if (root == "mad" && (real || has(parts, "hi"))) fail("mad.lo or mad.wide", name);
      i.op = root == "mad"        ? Op::mad
             : has(parts, "wide") ? Op::mul_wide
             : has(parts, "hi")   ? Op::mul_hi
                                  : Op::mul;
      if (has(parts, "wide")) i.type.bits *= 2;
      return plain(arguments, root == "mad" ? 3 : 2, name);
    }
    if (root == "mov") {
      i.op = Op::mov;
      if (arguments.size() != 2) fail("mov of one operand", name);
      i.to = operands(arguments[0]);  // mov.b64 {low, high}, x  and  mov.b64 x, {low, high}
      i.of = operands(arguments[1]);
      return;
    }
    if (root == "cvt") return conversion(name, parts, types, arguments);
    if (root == "setp") return comparison(name, parts, arguments);
    if (root == "bra") {
      i.op = Op::bra;
      return;
    }
    if (root == "ret" || root == "exit") {
      i.op = Op::ret;
      return;
    }
    if (root == "ld" || root == "st") return memory(name, parts, arguments);
    if (root == "shfl") {
      if (!name.starts_with("shfl.sync.bfly.b32") || arguments.size() != 5) fail("shfl.sync.bfly.b32", name);
      i.op = Op::shfl;
      for (const std::string_view to : cut(arguments[0], '|')) i.to.push_back(operand(to));
      for (std::size_t a = 1; a < 5; ++a) i.of.push_back(operand(arguments[a]));
      return;
    }
    if (root == "mma") return product(name, parts, types, arguments);
    if (root == "ldmatrix") {
      if (!name.starts_with("ldmatrix.sync.aligned.m8n8.x")) fail("ldmatrix of 8 x 8 matrices", name);
      i.op = Op::ldmatrix;
      i.transposed = has(parts, "trans");
      i.space = Space::shared;
      i.to = operands(arguments.at(0));
      return address(arguments.at(1));
    }
    synchronisation(name, parts, arguments);
  }

  void conversion(std::string_view name, const Parts& parts, const std::vector<Type>& types,
                  const Parts& arguments) {
    i.op = Op::cvt;
    if (types.size() != 2) fail("two types", name);
    i.type = types[0];
    i.from = types[1];
    static const std::map<std::string_view, Round> rounds = {
        {"rn", Round::even},  {"rz", Round::zero},          {"rm", Round::down},         {"rp", Round::up},
        {"rna", Round::away}, {"rni", Round::even_integer}, {"rzi", Round::zero_integer}};
    for (const auto& [word, round] : rounds) {
      if (has(parts, word)) i.round = round;
    }
    const bool tf32 = has(parts, "tf32");
    const bool integers =
        i.type.kind != Kind::real && i.from.kind != Kind::real && i.type.kind != Kind::bfloat;
    const bool narrower =
        i.type.bits == 16 && i.round == Round::even && i.from.kind == Kind::real && i.from.bits == 32;
    const bool wider =
        i.type.kind == Kind::real && i.type.bits == 32 && i.from.bits == 16 && i.round == Round::none;
    const bool to_real =
        i.type.kind == Kind::real && i.type.bits == 32 && i.from.kind != Kind::real && i.round == Round::even;
    const bool to_whole = i.from.kind == Kind::real && i.from.bits == 32 &&
                          (i.round == Round::even_integer || i.round == Round::zero_integer);
    if (i.saturate && !integers) fail("a conversion that this machine knows", name);
    if (!(integers || narrower || wider || to_real || to_whole || (tf32 && i.round == Round::away)))
      fail("a conversion that this machine knows", name);
    plain(arguments, 1, name);
  }

  void comparison(std::string_view name, const Parts& parts, const Parts& arguments) {
    static const std::map<std::string_view, Compare> compares = {
        {"eq", Compare::eq}, {"ne", Compare::ne}, {"lt", Compare::lt}, {"le", Compare::le},
        {"gt", Compare::gt}, {"ge", Compare::ge}, {"lo", Compare::lt}, {"ls", Compare::le},
        {"hi", Compare::gt}, {"hs", Compare::ge}};
    std::string_view word = parts.at(1);
    i.op = Op::setp;
    if (word.size() == 3 && word.back() == 'u') {
      i.unordered = true;
      word.remove_suffix(1);
    }
    const auto found = compares.find(word);
    if (found == compares.end() || parts.size() != 3) fail("a comparison of two numbers", name);
    i.compare = found->second;
    plain(arguments, 2, name);
  }

  void memory(std::string_view name, const Parts& parts, const Parts& arguments) {
    const bool load = parts[0] == "ld";
    i.op = load ? Op::ld : Op::st;
    i.space = has(parts, "param")    ? Space::param
              : has(parts, "global") ? Space::global
              : has(parts, "shared") ? Space::shared
                                     : Space::none;
    if (i.space == Space::none || (i.space == Space::param && !load))
      fail("param, global or shared memory", name);
    i.read_only = has(parts, "nc");
    address(arguments.at(load ? 1 : 0));
    const std::vector<Operand> values = operands(arguments.at(load ? 0 : 1));
    if (load) {
      i.to = values;
    } else {
      i.of.insert(i.of.end(), values.begin(), values.end());
    }
  }

  void product(std::string_view name, const Parts& parts, const std::vector<Type>& types,
               const Parts& arguments) {
    i.op = Op::mma;
    const bool known = name.starts_with("mma.sync.aligned.m16n8k16.row.col.f32.f16.f16.f32") ||
                       name.starts_with("mma.sync.aligned.m16n8k16.row.col.f32.bf16.bf16.f32") ||
                       name.starts_with("mma.sync.aligned.m16n8k8.row.col.f32.tf32.tf32.f32") ||
                       (name.starts_with("mma.sync.aligned.m16n8k32.row.col") && types.size() == 4 &&
                        types[0].bits == 32 && types[1].bits == 8 && types[2].bits == 8);
    if (!known || arguments.size() != 4) fail("an mma that this machine knows", name);
    i.type = types[0];
    i.from = types[1];
    i.left_natural = types[1].kind == Kind::natural;
    i.right_natural = types[2].kind == Kind::natural;
    i.saturate = has(parts, "satfinite");
    i.to = operands(arguments[0]);
    for (std::size_t a = 1; a < 4; ++a) {
      const std::vector<Operand> found = operands(arguments[a]);
      i.of.insert(i.of.end(), found.begin(), found.end());
    }
    if (i.to.size() != 4 || i.of.size() != 10) fail("4 sums, 4 and 2 registers of factors", name);
  }

  void synchronisation(std::string_view name, const Parts& parts, const Parts& arguments) {
    const auto starts = [&](std::string_view with) { return name.starts_with(with); };
    i.cluster_scope = has(parts, "cluster");
    if (name == "bar.warp.sync") {
      i.op = Op::warp_sync;
      i.of.push_back(operand(arguments.at(0)));
    } else if (name == "bar.sync" || name == "barrier.sync") {
      i.op = Op::cta_sync;
      if (arguments.size() != 1 || arguments[0] != "0") fail("barrier 0 for all threads", name);
    } else if (name == "barrier.cluster.arrive.release.aligned") {
      i.op = Op::cluster_arrive;
    } else if (name == "barrier.cluster.wait.acquire.aligned") {
      i.op = Op::cluster_wait;
    } else if (name == "fence.mbarrier_init.release.cluster") {
      i.op = Op::fence_init;
    } else if (starts("cp.async.cg.shared.global")) {
      i.op = Op::copy;
      address(arguments.at(0));
      if (i.offset != 0) fail("an address without an offset", name);
      address(arguments.at(1));
      i.of.push_back(operand(arguments.at(2)));
      i.of.push_back(arguments.size() > 3 ? operand(arguments[3]) : operand(arguments[2]));
    } else if (name == "cp.async.commit_group") {
      i.op = Op::copy_commit;
    } else if (name == "cp.async.wait_group") {
      i.op = Op::copy_wait;
      i.of.push_back(operand(arguments.at(0)));
    } else if (name ==
               "cp.async.bulk.shared::cluster.global.mbarrier::complete_tx::bytes.multicast::cluster") {
      i.op = Op::bulk_copy;
      for (const std::size_t a : {0, 1, 3}) {
        address(arguments.at(a));
        if (i.offset != 0) fail("addresses without offsets", name);
      }
      i.of.push_back(operand(arguments.at(2)));
      i.of.push_back(operand(arguments.at(4)));  // to, from, barrier, bytes, CTAs
    } else if (name == "mbarrier.init.shared::cta.b64") {
      i.op = Op::barrier_init;
      address(arguments.at(0));
      i.of.push_back(operand(arguments.at(1)));
    } else if (starts("mbarrier.arrive.expect_tx.release.") && arguments.at(0) == "_") {
      i.op = Op::barrier_expect;
      i.space = has(parts, "shared::cluster") ? Space::cluster : Space::shared;
      address(arguments.at(1));
      i.of.push_back(operand(arguments.at(2)));
    } else if (starts("mbarrier.arrive.release.") && arguments.at(0) == "_") {
      i.op = Op::barrier_arrive;
      i.space = has(parts, "shared::cluster") ? Space::cluster : Space::shared;
      address(arguments.at(1));
    } else if (starts("mbarrier.try_wait.parity.acquire.")) {
      i.op = Op::barrier_wait;
      i.to = operands(arguments.at(0));
      address(arguments.at(1));
      i.of.push_back(operand(arguments.at(2)));
    } else {
      fail("an instruction that this machine knows", name);
    }
  }

  Instruction& i;
  const Names& names_;
};

}  // namespace

void decode(Instruction& i, std::string_view text, const Names& names) { Decoder(i, names).run(text); }

}  // namespace ptx
