#include "ptx/program.h"

#include <algorithm>
#include <cctype>
#include <cstddef>
#include <utility>

#include "ptx/decode.h"

namespace ptx {

namespace {

class Parser {
 public:
  explicit Parser(std::string text) : text_(std::move(text)) {
    // Comments go; lines stay where they are.
    for (std::size_t i = 0; i + 1 < text_.size(); ++i) {
      if (text_[i] == '/' && text_[i + 1] == '/') {
        while (i < text_.size() && text_[i] != '\n') text_[i++] = ' ';
      }
    }
  }

  std::map<std::string, Entry> run() {
    while (skip_space(), at_ < text_.size()) {
      const std::string_view word = peek_word();
      if (word == ".version" || word == ".target" || word == ".address_size") {
        skip_line();
      } else if (word == ".extern") {
        // .extern .shared .align 16 .b8 name[];
        const std::string_view statement = take_until(';');
        const auto open = statement.rfind('[');
        const auto space = statement.rfind(' ', open);
        if (statement.find(".shared") == std::string_view::npos || open == std::string_view::npos)
          fail("shared memory of any length", statement);
        names_.symbols[std::string(statement.substr(space + 1, open - space - 1))] = kShared;
      } else if (word == ".visible" || word == ".weak" || word == ".entry") {
        entry();
      } else {
        fail("an entry", word);
      }
    }
    return std::move(entries_);
  }

 private:
  [[noreturn]] void fail(const std::string& expected, std::string_view got) const {
    throw Fault("PTX line " + std::to_string(line()) + ": expected " + expected + ", got " +
                std::string(got));
  }

  int line() const {
    const auto at = [&](std::size_t i) { return text_.begin() + static_cast<std::ptrdiff_t>(i); };
    if (from_ > counted_) {
      line_ += static_cast<int>(std::count(at(counted_), at(from_), '\n'));
      counted_ = from_;
    }
    return line_;
  }
  void skip_space() {
    while (at_ < text_.size() && std::isspace(static_cast<unsigned char>(text_[at_])) != 0) ++at_;
    from_ = at_;
  }
  void skip_line() {
    while (at_ < text_.size() && text_[at_] != '\n') ++at_;
  }
  std::string_view peek_word() const {
    std::size_t end = at_;
    while (end < text_.size() && std::isspace(static_cast<unsigned char>(text_[end])) == 0) ++end;
    return std::string_view(text_).substr(at_, end - at_);
  }
  std::string_view take_until(char c) {
    const auto end = text_.find(c, at_);
    if (end == std::string::npos) fail(std::string("a ") + c, "the end");
    const auto taken = std::string_view(text_).substr(at_, end - at_);
    at_ = end + 1;
    return trimmed(taken);
  }

  void entry() {
    Entry made;
    const std::string_view head = take_until('(');
    made.name = head.substr(head.rfind(' ') + 1);
    const std::string_view parameter = take_until(')');
    if (!parameter.empty()) {
      // .param .align 8 .b8 name[280]
      const auto open = parameter.rfind('[');
      const auto space = parameter.rfind(' ', open);
      if (open == std::string_view::npos || parameter.find(',') != std::string_view::npos)
        fail("one parameter, an array of bytes", parameter);
      names_.symbols[std::string(parameter.substr(space + 1, open - space - 1))] = kParameters;
      made.parameter_bytes = std::stoll(std::string(parameter.substr(open + 1)));
    }
    const std::string_view directives = take_until('{');
    if (const auto found = directives.find(".maxntid"); found != std::string_view::npos)
      made.most_threads = std::stoi(std::string(directives.substr(found + 8)));
    entry_ = &made;
    names_.scopes.assign(1, {});
    labels_.clear();
    jumps_.clear();
    while (!names_.scopes.empty()) statement();
    for (const auto& [index, label] : jumps_) {
      const auto found = labels_.find(label);
      if (found == labels_.end()) fail("a label " + label, "none");
      made.code[index].target = found->second;
    }
    entries_[made.name] = std::move(made);
  }

  void statement() {
    skip_space();
    if (at_ >= text_.size()) fail("a }", "the end");
    if (text_[at_] == '{') {
      ++at_;
      names_.scopes.emplace_back();
      return;
    }
    if (text_[at_] == '}') {
      ++at_;
      names_.scopes.pop_back();
      return;
    }
    const auto colon = text_.find_first_of(":; \t\n", at_);
    if (colon != std::string::npos && text_[colon] == ':' && text_.compare(colon, 2, "::") != 0) {
      labels_[text_.substr(at_, colon - at_)] = static_cast<std::int32_t>(entry_->code.size());
      at_ = colon + 1;
      return;
    }
    const std::string_view s = take_until(';');
    if (s.starts_with(".pragma")) return;
    if (s.starts_with(".reg")) {
      registers(s);
    } else {
      instruction(s);
    }
  }

  /// .reg .b32 %r<100>;  or  .reg .pred p, q;
  void registers(std::string_view s) {
    const auto type_begin = s.find('.', 4);
    const auto names_begin = s.find_first_of(" \t\n", type_begin);
    for (const std::string_view name : cut(s.substr(names_begin), ',')) {
      const auto open = name.find('<');
      if (open == std::string_view::npos) {
        names_.scopes.back()[std::string(name)] = entry_->registers++;
        continue;
      }
      const int count = std::stoi(std::string(name.substr(open + 1)));
      for (int i = 0; i < count; ++i)
        names_.scopes.back()[std::string(name.substr(0, open)) + std::to_string(i)] = entry_->registers++;
    }
  }

  void instruction(std::string_view s) {
    Instruction i;
    i.line = line();
    if (s.starts_with('@')) {
      const auto space = s.find_first_of(" \t\n");
      std::string_view guard = s.substr(1, space - 1);
      if (guard.starts_with('!')) {
        i.guard_not = true;
        guard.remove_prefix(1);
      }
      i.guard = names_.find_register(guard);
      if (i.guard < 0) fail("a predicate", guard);
      s = trimmed(s.substr(space));
    }
    decode(i, s, names_);
    if (i.op == Op::bra) jumps_.emplace_back(entry_->code.size(), s.substr(s.find_last_of(" \t\n") + 1));
    entry_->code.push_back(std::move(i));
  }

  std::string text_;
  std::size_t at_ = 0;
  std::size_t from_ = 0;  ///< Where the statement begins, for messages.
  mutable std::size_t counted_ = 0;
  mutable int line_ = 1;  ///< Of counted_.
  Names names_;
  std::map<std::string, Entry> entries_;
  Entry* entry_ = nullptr;
  std::map<std::string, std::int32_t> labels_;
  std::vector<std::pair<std::size_t, std::string>> jumps_;
};

}  // namespace

std::map<std::string, Entry> parse(const std::string& text) { return Parser(text).run(); }

}  // namespace ptx
