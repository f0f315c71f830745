/**
 * Random templates: most are valid, some have a wrong type or a missing name, and some are torn by a changed character.
 */

/** One template; the same for the same seed. */
export function generateTemplate(seed: number): string {
  return new Generator(seed).template();
}

const TEXTS = ["-s -w", " ", "\n", "-X main.v=", "  \t", "é😀", "}}", "{ { ", '"', "a b", "%", "`"];
const STRINGS = ['""', '"a"', '"b c"', '"é\\n"', "`raw`", '"\\x41\\u00e9"', '"7"', '"0123456789"', '"😀z"', '"\\""'];
const NUMBERS = "0 1 2 3 7 -1 10 0x1F 0b101 0o17 017 1_0 1.5 1e3 -2.25 .5 1e21 1e-7 100000000.0 'a' '\\n' 0x1p4".split(
  " ",
);
const FIELDS = [
  ...".Env.A .Env.VERSION .Env.EMPTY .Env.DIGITS .GoEnv.GOARCH .GoEnv.GOOS .Date .Timestamp".split(" "),
  ...".Git.Tag .Git.Branch .Git.ShortCommit .Git.FullCommit .Git.CommitDate .Git.CommitTimestamp".split(" "),
  ...".Git.IsDirty .Git.IsClean .Git.TreeState (.Git).Tag (.Env).A".split(" "),
  ...['(index .Git "Tag")', '(index .Env "NONE")', '(index .Git "None")', "(index .Env .Git.Tag)", '(index . "Date")'],
];
const MAPS = [".Env", "$.GoEnv", ".Git", "$.Git", "(index . `Env`)"];
const FORMATS =
  "%s %q %v %d %x %X %t %c %f %g %e %% %5s %-5s| %05d %+d %.2f %8.3f| %-8.2e| %+q %#q %#x %.1s %+.3g %#v".split(" ");
const NOISE = [
  "{{",
  "}}",
  "{{-",
  "-}}",
  " ",
  "-",
  ".",
  "$",
  "|",
  "(",
  ")",
  '"',
  "`",
  "'",
  ",",
  ":=",
  "=",
  "x",
  "1",
  "\n",
  "else",
  "end",
  "_",
];

class Generator {
  #state: number;
  #variables: string[] = [];
  #loops = 0;
  /** False where the dot may be another value than all data. */
  #isTop = true;

  constructor(seed: number) {
    this.#state = seed * 2654435761;
  }

  template(): string {
    const text = this.#list(3);
    if (!this.#chance(3)) return text;
    let torn = text;
    for (let i = this.#below(3); i >= 0; i--) {
      const at = this.#below(torn.length + 1);
      torn = torn.slice(0, at) + (this.#chance(3) ? "" : this.#pick(NOISE)) + torn.slice(at + this.#below(3));
    }
    return torn;
  }

  #list(depth: number): string {
    let text = "";
    for (let i = this.#below(4); i >= 0; i--) text += this.#chance(3) ? this.#pick(TEXTS) : this.#node(depth);
    return text;
  }

  #node(depth: number): string {
    const kind = this.#below(depth > 0 ? 12 : 6);
    switch (kind) {
      case 0:
        return this.#declaration();
      case 1:
        return this.#variables.length > 0 ? this.#open(`${this.#pick(this.#variables)} = ${this.#pipeline(2)}`) : "";
      case 2:
        return this.#chance(2) ? this.#comment() : this.#jump();
      case 6:
      case 7:
        return this.#scope(() => this.#if(depth));
      case 8:
        return this.#scope(() => {
          const start = this.#open(`with ${this.#chance(2) ? this.#newVariable() : ""}${this.#value(2)}`);
          const body = this.#inner(() => this.#list(depth - 1));
          return start + body + this.#else(depth) + this.#open("end");
        });
      case 9:
      case 10:
        return this.#scope(() => this.#range(depth));
      default:
        return this.#open(this.#pipeline(2));
    }
  }

  #if(depth: number): string {
    let text =
      this.#open(`if ${this.#chance(4) ? this.#newVariable() : ""}${this.#pipeline(2)}`) + this.#list(depth - 1);
    while (this.#chance(4)) text += this.#open(`else if ${this.#pipeline(1)}`) + this.#list(depth - 1);
    return text + this.#else(depth) + this.#open("end");
  }

  #range(depth: number): string {
    const isMap = this.#chance(2);
    const over = isMap
      ? this.#pick(MAPS)
      : this.#pick([
          "3",
          "0",
          "(len $.Git)",
          "-1",
          "$.Timestamp",
          ...(this.#chance(6) ? ["true", "nil", '"a"', "1.5", ...this.#variables] : []),
        ]);
    let variables = "";
    if (this.#chance(2)) variables = isMap && this.#chance(2) ? this.#newVariable().replace(" :=", ",") : "";
    if (variables !== "" || this.#chance(2)) variables += this.#newVariable();
    this.#loops++;
    const body = this.#inner(() => this.#list(depth - 1));
    this.#loops--;
    return this.#open(`range ${variables}${over}`) + body + this.#else(depth) + this.#open("end");
  }

  #else(depth: number): string {
    return this.#chance(3) ? this.#open("else") + this.#list(depth - 1) : "";
  }

  #jump(): string {
    return this.#loops > 0 ? this.#open(this.#pick(["break", "continue"])) : "";
  }

  #comment(): string {
    return this.#pick(["{{/* x */}}", "{{- /* }} */ -}}", "{{/**/}}", "{{/* a\nb */ -}}"]);
  }

  #declaration(): string {
    const value = this.#pipeline(2);
    return this.#open(this.#newVariable() + value);
  }

  #newVariable(): string {
    const name = this.#pick(["$x", "$y", "$ü1", "$z"]);
    this.#variables.push(name);
    return `${name} := `;
  }

  #pipeline(depth: number): string {
    let text = this.#chance(2) ? this.#value(depth) : this.#call(depth);
    while (this.#chance(4)) text += this.#pick([" | ", "|", " |\n "]) + this.#stage(depth);
    return text;
  }

  #stage(depth: number): string {
    const simple = [
      "print",
      "println",
      "len",
      "not",
      "printf `%v`",
      "printf `%q`",
      "and 1",
      "or 0",
      "eq 1",
      "index .Env",
    ];
    return this.#chance(6) ? this.#call(Math.min(depth, 1)) : this.#pick(simple);
  }

  #call(depth: number): string {
    const values = (count: number): string =>
      Array.from({ length: count }, () => ` ${this.#value(depth - 1)}`).join("");
    switch (this.#below(10)) {
      case 0:
        return `${this.#pick(["and", "or"])}${values(1 + this.#below(3))}`;
      case 1:
        return `eq${this.#alike(this.#chance(3) ? 3 : 2)}`;
      case 2:
        return `${this.#pick(["ne", "lt", "le", "gt", "ge"])}${this.#alike(2)}`;
      case 3:
        return `${this.#pick(["not", "len"])}${values(1)}`;
      case 4:
        return `index ${this.#pick([...MAPS, ".Git.Tag", '"abc"'])} ${this.#pick([...STRINGS, ...NUMBERS, '"Tag"', '"A"'])}`;
      case 5:
        return `slice ${this.#pick(["$.Git.FullCommit", '"é0123456789"'])} ${this.#below(9)} ${this.#below(14)}`;
      case 6:
        return `${this.#pick(["print", "println"])}${values(this.#below(4))}`;
      case 7:
      case 8: {
        const formats = Array.from({ length: 1 + this.#below(3) }, () => this.#pick(FORMATS)).join(
          this.#pick(["", " ", "é"]),
        );
        return `printf "${formats}"${values(this.#below(4))}`;
      }
      default:
        return `${this.#pick(["eq", "and", "print", "slice", "index", "lt", "len"])}${values(1 + this.#below(3))}`;
    }
  }

  /** Values that are probably of one type. */
  #alike(count: number): string {
    const texts = [...STRINGS, "$.Git.Tag", "$.Env.A"];
    const pools = [texts, ["1", "2", "97", "'a'", "$.Timestamp", "(index `a` 0)"], ["1.5", "1e3", ".5"]];
    const pool = this.#chance(6) ? pools.flat() : (pools[this.#below(pools.length)] ?? []);
    return Array.from({ length: count }, () => ` ${this.#pick(pool)}`).join("");
  }

  #value(depth: number): string {
    switch (this.#below(8)) {
      case 0:
        return this.#pick(STRINGS);
      case 1:
        return this.#pick(NUMBERS);
      case 2:
        return this.#pick(["true", "false", ...(this.#chance(8) ? ["nil", ".", ".Env.NONE"] : [])]);
      case 3:
        return this.#variables.length > 0 ? this.#pick(this.#variables) : this.#field();
      case 4:
        return depth > 0 ? `(${this.#pipeline(depth - 1)})` : this.#field();
      default:
        return this.#field();
    }
  }

  #field(): string {
    const field = this.#pick(FIELDS);
    return this.#isTop || this.#chance(8)
      ? field
      : field.replaceAll(/(^|[ (])\.(?=[A-Z ])/g, (_all, before: string) => {
          return `${before}$.`;
        });
  }

  #open(inner: string): string {
    const start = this.#pick(["{{", "{{", "{{ ", "{{- ", "{{\n"]);
    const end = this.#pick(["}}", "}}", " }}", " -}}", "\t}}"]);
    return `${start}${inner}${end}`;
  }

  #scope(make: () => string): string {
    const variables = [...this.#variables];
    const text = make();
    // Sometimes a variable is used behind the end of its scope.
    if (!this.#chance(20)) this.#variables = variables;
    return text;
  }

  #inner(make: () => string): string {
    const isTop = this.#isTop;
    this.#isTop = false;
    const text = make();
    this.#isTop = isTop;
    return text;
  }

  /** A number from 0 to n - 1 (mulberry32). */
  #below(n: number): number {
    this.#state = (this.#state + 0x6d2b79f5) | 0;
    let t = Math.imul(this.#state ^ (this.#state >>> 15), 1 | this.#state);
    t = (t + Math.imul(t ^ (t >>> 7), 61 | t)) ^ t;
    return ((t ^ (t >>> 14)) >>> 0) % n;
  }

  #chance(oneIn: number): boolean {
    return this.#below(oneIn) === 0;
  }

  #pick(choices: readonly string[]): string {
    return choices[this.#below(choices.length)] ?? "";
  }
}
