/**
 * Parses the templates of `flags` and `ldflags`: Go's text/template (parse/parse.go) without definitions and HTML.
 *
 * Unknown data and maps written as a whole, which Go finds late or never, are refused here. Rendering is template.ts's job.
 */
import { findNearest, type UsageError } from "./errors.ts";
import { DataUse, refuseMap, type Shape, type TemplateReads } from "./template-data.ts";
import { encodeText, parseFormat, TemplateProblem, type Value } from "./template-format.ts";
import {
  readNumber,
  syntaxError,
  type TemplatePlace,
  type TemplateSource,
  type Token,
  tokenize,
  unquote,
} from "./template-lex.ts";

/** A parsed template. */
export interface Template {
  readonly source: TemplateSource;
  readonly nodes: readonly Node[];
  readonly reads: TemplateReads;
}

export type Node =
  | { readonly kind: "text"; readonly text: string }
  | { readonly kind: "action"; readonly pipe: Pipe }
  | Branch
  | { readonly kind: "break" | "continue" };

export interface Branch {
  readonly kind: "if" | "with" | "range";
  readonly pipe: Pipe;
  readonly body: readonly Node[];
  readonly otherwise: readonly Node[];
}

export interface Pipe {
  readonly offset: number;
  /** The kind of its result. */
  readonly shape: Shape;
  /** Variables that take the result; two only for `range`. */
  readonly variables: readonly string[];
  /** True for `=`, false for `:=`. */
  readonly isAssignment: boolean;
  /** The operands of each command. */
  readonly commands: readonly (readonly [Operand, ...Operand[]])[];
}

export type Operand = { readonly offset: number; readonly shape: Shape } & (
  | { readonly kind: "constant"; readonly value: Value }
  | { readonly kind: "dot" | "nil" }
  | { readonly kind: "function" | "variable"; readonly name: string }
  | { readonly kind: "pipe"; readonly pipe: Pipe }
  | { readonly kind: "field"; readonly of: Operand; readonly name: string }
);

interface Variable {
  readonly name: string;
  shape: Shape;
}

const FUNCTIONS: ReadonlySet<string> = new Set(
  "and or not eq ne lt le gt ge len index slice print printf println".split(" "),
);

/** Functions of Go that no known configuration uses. */
const REFUSED: ReadonlySet<string> = new Set(["call", "html", "js", "urlquery"]);

/** Functions of GoReleaser and sprig, as ko spells them; NAME stands for the text behind the function. */
const OTHER_FUNCTIONS: ReadonlyMap<string, string> = new Map([
  ["env", ".Env.NAME"],
  ["envOrDefault", 'or (index .Env "NAME") "DEFAULT"'],
  ["isEnvSet", 'index .Env "NAME"'],
  ["default", 'or (index .Env "NAME") "DEFAULT"'],
  ["time", ".Date"],
  ["now", ".Date"],
]);

const OPERANDS: ReadonlySet<Token["kind"]> = new Set<Token["kind"]>([
  "bool",
  "dot",
  "field",
  "word",
  "number",
  "string",
  "variable",
  "(",
]);

const MAX_DEPTH = 200;

/**
 * Parses a template.
 *
 * @param place the origin of the text, for messages
 * @throws {UsageError} If the text is not a template, uses a construct, function or name that is not supported, or
 * writes a whole map. The message has file, line and column.
 */
export function parseTemplate(text: string, place: TemplatePlace): Template {
  const source = { text, place };
  return new Parser(source).parse();
}

class Parser {
  readonly #source: TemplateSource;
  readonly #tokens: readonly Token[];
  readonly #data: DataUse = new DataUse();
  readonly #variables: Variable[] = [{ name: "$", shape: "." }];
  #next = 0;
  #depth = 0;
  /** How many bodies of `range` are open. */
  #loops = 0;
  #dot: Shape = ".";

  constructor(source: TemplateSource) {
    this.#source = source;
    this.#tokens = tokenize(source);
  }

  parse(): Template {
    const { nodes, end } = this.#list();
    if (end !== undefined) throw this.#error(end, `this "${end.text}" belongs to nothing`);
    return { source: this.#source, nodes, reads: this.#data.reads };
  }

  /** Parses up to `end` or `else`, and takes that word, or to the end of the template. */
  #list(): { readonly nodes: readonly Node[]; readonly end: Token | undefined } {
    const nodes: Node[] = [];
    for (let token = this.#take(); token !== undefined; token = this.#take()) {
      if (token.kind === "text") {
        nodes.push({ kind: "text", text: encodeText(token.text) });
        continue;
      }
      const word = this.#peekWord();
      if (word?.kind !== "keyword" || word.text === "nil") {
        nodes.push(this.#action());
        continue;
      }
      this.#takeWord();
      if (word.text === "end" || word.text === "else") return { nodes, end: word };
      nodes.push(this.#control(word));
    }
    return { nodes, end: undefined };
  }

  #action(): Node {
    const pipe = this.#pipe("action", "close");
    if (pipe.variables.length === 0) this.#checked(pipe.offset, () => refuseMap(pipe.shape));
    return { kind: "action", pipe };
  }

  #control(word: Token): Node {
    switch (word.text) {
      case "if":
      case "with":
      case "range":
        return this.#branch(word.text, word);
      case "break":
      case "continue":
        this.#expectClose(word);
        if (this.#loops === 0) throw this.#error(word, `"${word.text}" is outside of a "range"`);
        return { kind: word.text };
      default:
        throw this.#error(word, `"${word.text}" is not supported in templates of ko`);
    }
  }

  #branch(kind: Branch["kind"], word: Token): Branch {
    this.#enter(word);
    const dot = this.#dot;
    const mark = this.#variables.length;
    const pipe = this.#pipe(kind, "close");
    if (kind === "with") this.#dot = pipe.shape;
    if (kind === "range") this.#dot = this.#declareElements(pipe);
    const inner = this.#variables.length;
    this.#loops += kind === "range" ? 1 : 0;
    const { nodes: body, end } = this.#list();
    this.#loops -= kind === "range" ? 1 : 0;
    this.#dot = dot;
    this.#variables.length = inner;
    if (end === undefined) throw this.#error(word, `this "${kind}" has no {{end}}`);
    const otherwise = end.text === "else" ? this.#else(kind, word) : [];
    if (end.text === "end") this.#expectClose(end);
    this.#variables.length = mark;
    this.#depth--;
    return { kind, pipe, body, otherwise };
  }

  #else(kind: Branch["kind"], word: Token): readonly Node[] {
    const next = this.#takeWord();
    // One {{end}} ends all of a chain of {{else if}}.
    if (next?.kind === "keyword" && next.text === kind && kind !== "range") return [this.#branch(kind, next)];
    if (next?.kind !== "close") throw this.#unexpected(next, "else");
    const { nodes, end } = this.#list();
    if (end === undefined) throw this.#error(word, `this "${kind}" has no {{end}}`);
    if (end.text === "else") throw this.#error(end, `the "${kind}" has an {{else}} already`);
    this.#expectClose(end);
    return nodes;
  }

  /** Gives the variables of a `range` the kind of keys and elements. Returns the latter, the kind of its dot. */
  #declareElements({ variables, isAssignment, shape }: Pipe): Shape {
    const element = this.#data.elements(shape);
    const shapes: readonly Shape[] = variables.length > 1 ? ["value", element] : [element];
    for (const [i, name] of variables.entries()) this.#set(name, { shape: shapes[i] ?? "any", isAssignment });
    return element;
  }

  #pipe(context: string, end: "close" | ")"): Pipe {
    const offset = this.#peekWord()?.offset ?? 0;
    const { variables, isAssignment } = this.#declarations(context);
    const commands: (readonly [Operand, ...Operand[]])[] = [];
    let shape: Shape | undefined;
    for (let token = this.#peekWord(); token?.kind !== end; token = this.#peekWord()) {
      if (token === undefined || !isOperand(token)) throw this.#unexpected(token, context);
      const command = this.#command();
      if (commands.length > 0 && ["constant", "dot", "nil"].includes(command[0].kind)) {
        throw this.#error(token, `"${token.text}" stands behind "|" and takes no value, wanted a function`);
      }
      shape = this.#shapeOf(command, shape);
      commands.push(command);
    }
    const last = this.#takeWord();
    if (shape === undefined) throw this.#unexpected(last, context);
    if (context !== "range") for (const name of variables) this.#set(name, { shape, isAssignment });
    return { offset, shape, variables, isAssignment, commands };
  }

  #declarations(context: string): Pick<Pipe, "variables" | "isAssignment"> {
    const variables: string[] = [];
    for (;;) {
      const start = this.#next;
      const variable = this.#takeWord();
      const next = variable?.kind === "variable" ? this.#takeWord() : undefined;
      if (variable === undefined || next === undefined || ![":=", "=", "char"].includes(next.kind)) {
        // The variable is a value, or there is none.
        this.#next = start;
        return { variables, isAssignment: false };
      }
      if (next.kind === "char" && next.text !== ",") throw this.#unexpected(next, context);
      variables.push(variable.text);
      if (next.kind === "char") {
        if (context !== "range" || variables.length > 1) throw this.#error(next, "there are too many variables");
        if (this.#peekWord()?.kind !== "variable") throw this.#unexpected(this.#peekWord(), context);
        continue;
      }
      const isAssignment = next.kind === "=";
      for (const name of isAssignment ? variables : []) this.#find(name, variable);
      return { variables, isAssignment };
    }
  }

  #command(): readonly [Operand, ...Operand[]] {
    const operands: Operand[] = [];
    for (;;) {
      const token = this.#peekWord();
      if (token !== undefined && isOperand(token)) operands.push(this.#operand());
      const next = this.#take();
      if (next?.kind === "space") continue;
      if (next?.kind === "close" || next?.kind === ")") this.#next--;
      else if (next?.kind !== "|") throw this.#unexpected(next, "action");
      break;
    }
    const [first, ...rest] = operands;
    if (first === undefined) throw this.#unexpected(this.#peekWord(), "action");
    return [first, ...rest];
  }

  #operand(): Operand {
    const token = this.#takeWord();
    if (token === undefined) throw this.#unexpected(token, "action");
    let operand = this.#term(token);
    for (let field = this.#tokens[this.#next]; field?.kind === "field"; field = this.#tokens[this.#next]) {
      if (["constant", "dot", "nil"].includes(operand.kind)) throw this.#error(token, `"${token.text}" has no fields`);
      operand = this.#field(operand, field);
      this.#next++;
    }
    return operand;
  }

  #term(token: Token): Operand {
    const { offset, text } = token;
    switch (token.kind) {
      case "word":
        this.#checkFunction(token);
        return { kind: "function", name: text, offset, shape: "value" };
      case "dot":
        return { kind: "dot", offset, shape: this.#dot };
      case "field":
        return this.#field({ kind: "dot", offset, shape: this.#dot }, token);
      case "variable":
        return { kind: "variable", name: text, offset, shape: this.#find(text, token).shape };
      case "bool":
        return { kind: "constant", value: text === "true", offset, shape: "value" };
      case "string": {
        const value = unquote(text);
        if (value === undefined) throw this.#error(token, `${text} has an escape that Go does not have`);
        return { kind: "constant", value, offset, shape: "value" };
      }
      case "number": {
        const value = readNumber(text);
        if (value === undefined) throw this.#error(token, `${text} is not a number of 64 bits`);
        return { kind: "constant", value, offset, shape: "value" };
      }
      case "(": {
        this.#enter(token);
        const pipe = this.#pipe("parenthesis", ")");
        this.#depth--;
        return { kind: "pipe", pipe, offset, shape: pipe.shape };
      }
      default:
        return { kind: "nil", offset, shape: "value" };
    }
  }

  #field(of: Operand, { text, offset }: Token): Operand {
    const name = text.slice(1);
    const shape = this.#checked(offset, () => this.#data.field(of.shape, name));
    return { kind: "field", of, name, offset, shape };
  }

  #checkFunction(token: Token): void {
    const name = token.text;
    if (FUNCTIONS.has(name)) return;
    if (REFUSED.has(name)) throw this.#error(token, `the function "${name}" is not supported in templates of ko`);
    const spelling = OTHER_FUNCTIONS.get(name);
    if (spelling === undefined) {
      const nearest = findNearest(name, FUNCTIONS);
      const wanted = nearest === undefined ? `one of ${[...FUNCTIONS].join(", ")}` : `perhaps "${nearest}"`;
      throw this.#error(token, `there is no function "${name}", wanted ${wanted}`);
    }
    const [, text] = this.#tokens.slice(this.#next, this.#next + 2);
    const variable = text?.kind === "string" ? unquote(text.text) : undefined;
    const hint = `Type: ${spelling.replace("NAME", () => variable || "NAME")}`;
    throw syntaxError(this.#source, { offset: token.offset, why: `there is no function "${name}"`, hint });
  }

  /** Infers the kind of a command's result, and records the data that it reads. */
  #shapeOf([first, ...rest]: readonly [Operand, ...Operand[]], piped: Shape | undefined): Shape {
    if (first.kind !== "function") return first.shape;
    const shapes = [...rest.map(({ shape }) => shape), ...(piped === undefined ? [] : [piped])];
    const [start = "value", ...others] = shapes;
    if (first.name === "not") return "value";
    if (first.name === "and" || first.name === "or") return others.reduce((a, b) => this.#data.join(a, b), start);
    if (first.name === "index") {
      const keys = rest.slice(1).map((key) => (key.kind === "constant" ? key.value : undefined));
      return this.#data.index(start, piped === undefined || rest.length === 0 ? keys : [...keys, undefined]);
    }
    this.#checked(first.offset, () => {
      const [format] = rest;
      if (first.name === "printf" && format?.kind === "constant" && typeof format.value === "string") {
        parseFormat(format.value);
      }
      if (first.name.startsWith("print")) for (const shape of shapes) if (shape !== "Git") refuseMap(shape);
    });
    for (const shape of shapes) this.#data.readAll(shape);
    return "value";
  }

  #set(name: string, { shape, isAssignment }: { readonly shape: Shape; readonly isAssignment: boolean }): void {
    const variable = isAssignment ? this.#variables.findLast((known) => known.name === name) : undefined;
    if (variable === undefined) this.#variables.push({ name, shape });
    // A loop may use the variable with either of its values.
    else variable.shape = this.#data.join(variable.shape, shape);
  }

  #find(name: string, token: Token): Variable {
    const found = this.#variables.findLast((variable) => variable.name === name);
    if (found !== undefined) return found;
    const nearest = findNearest(name, new Set(this.#variables.map((variable) => variable.name)));
    const wanted = nearest === undefined || nearest === "$" ? "" : `, the nearest is "${nearest}"`;
    throw this.#error(token, `there is no variable "${name}"${wanted}`);
  }

  #enter(token: Token): void {
    if (++this.#depth > MAX_DEPTH) throw this.#error(token, `the template is nested more than ${MAX_DEPTH} deep`);
  }

  #expectClose(word: Token): void {
    const next = this.#takeWord();
    if (next?.kind !== "close") throw this.#unexpected(next, word.text);
  }

  #take(): Token | undefined {
    return this.#tokens[this.#next++];
  }

  #takeWord(): Token | undefined {
    const token = this.#take();
    return token?.kind === "space" ? this.#take() : token;
  }

  #peekWord(): Token | undefined {
    const token = this.#tokens[this.#next];
    return token?.kind === "space" ? this.#tokens[this.#next + 1] : token;
  }

  /** @param context a keyword, "action" or "parenthesis" */
  #unexpected(token: Token | undefined, context: string): UsageError {
    const place = context === "action" || context === "parenthesis" ? `the ${context}` : `"${context}"`;
    if (token === undefined || token.kind === "close") return this.#error(token, `${place} ends too early`);
    return this.#error(token, `"${token.text}" is not expected in ${place}`);
  }

  #checked<T>(offset: number, work: () => T): T {
    try {
      return work();
    } catch (error) {
      if (!(error instanceof TemplateProblem)) throw error;
      throw syntaxError(this.#source, { offset, why: error.message, hint: error.hint });
    }
  }

  #error(token: Token | undefined, why: string): UsageError {
    return syntaxError(this.#source, { offset: token?.offset ?? this.#source.text.length, why });
  }
}

function isOperand({ kind, text }: Token): boolean {
  return OPERANDS.has(kind) || (kind === "keyword" && text === "nil");
}
