/**
 * Proves that a document is valid YAML (https://yaml.org/spec/1.2.2/), and finds its scalars that may be `ko://`
 * references, in one pass and without a tree.
 *
 * It knows the YAML that people and tools write, JSON included. Everything else (tags, explicit keys, directives, odd
 * indentation) and every error is left to the yaml package, see yaml-exact.ts, which takes a hundred times longer.
 */
import {
  AMPERSAND,
  APOSTROPHE,
  CLOSE_LIST,
  CLOSE_MAP,
  COLON,
  COMMA,
  endOfPlain,
  endOfQuoted,
  endOfWords,
  GREATER,
  HASH,
  isBlank,
  isColon,
  isDash,
  isEndMarker,
  isFlowSign,
  isLineEnd,
  isMarker,
  mayBeReference,
  nextLine,
  OPEN_LIST,
  OPEN_MAP,
  PIPE,
  QUOTE,
  readName,
  scanBlock,
  type ScannedBlock,
  skipBlanks,
  skipSpaces,
  STAR,
  TAB,
} from "./yaml-scan-text.ts";
import type { YamlDocument } from "./yaml.ts";

/** A scalar whose source begins as a reference can. Offsets are UTF-16 units of the document's text. */
export type ScannedScalar =
  { readonly style: "plain" | "single" | "double"; readonly start: number; readonly end: number } | ScannedBlock;

/** "unknown": an error, or YAML that the scan does not know. */
export type ScanResult = "more" | "valid" | "unknown";

/** An open block collection. */
interface Frame {
  readonly kind: "root" | "map" | "seq";
  readonly indent: number;
  readonly anchor: string | undefined;
}

/** An open flow collection. */
interface FlowFrame {
  readonly kind: "map" | "seq";
  readonly anchor: string | undefined;
  /** The next token: a node, the colon or comma behind a key, the value behind a colon, the comma behind a node. */
  state: "start" | "key" | "value" | "end";
  /** In the state "key": the key was quoted, so that its value may follow without a blank. */
  isQuoted: boolean;
  /** In the state "key": the line of the key goes on. */
  isSameLine: boolean;
}

/** Where a block node stands: on its own line or behind a dash; as a key beside others; behind a colon. */
type Position = "node" | "key" | "value";

/** The limit of Go's parsers of YAML and JSON. */
const MAX_DEPTH = 10_000;
/** Below the 1,024 characters that YAML allows from the start of a key to its colon. */
const MAX_KEY = 1000;

/** One scan of one document. */
export class YamlScanner {
  /** In the order of the text. */
  readonly scalars: ScannedScalar[] = [];
  readonly #text: string;
  #at: number;
  #lineStart: number;
  /** The collections around the innermost one, and that one. */
  readonly #frames: Frame[] = [];
  #top: Frame = { kind: "root", indent: -1, anchor: undefined };
  readonly #flow: FlowFrame[] = [];
  /** A node is expected on one of the next lines. */
  #isPending = true;
  /** The anchor of the pending node. */
  #anchor: string | undefined;
  /** False once the scan has met something that it does not know. */
  #isKnown: boolean;
  readonly #anchors = new Set<string>();
  /** Anchors of collections that are not closed: an alias of one would contain itself. */
  readonly #open = new Set<string>();

  constructor({ text, marker, directives }: Pick<YamlDocument, "text" | "marker" | "directives">) {
    this.#text = text;
    const isOdd = directives || text.includes("\uFEFF", 1) || (text.includes("\r") && /\r(?!\n)/.test(text));
    this.#isKnown = !isOdd;
    this.#at = marker === undefined ? (text.startsWith("\uFEFF") ? 1 : 0) : marker + 3;
    this.#lineStart = marker ?? this.#at;
    if (!this.#isKnown || marker === undefined) return;
    this.#isPending = false;
    this.#isKnown = this.#readValue(this.#at);
  }

  /** The offset that the scan has come to: that of the line or token that it does not know. */
  get offset(): number {
    return this.#at;
  }

  /** Whether it ended because collections are nested too deeply. */
  get isTooDeep(): boolean {
    return this.#flow.length + this.#frames.length > MAX_DEPTH;
  }

  /** Reads about this many characters. */
  run(characters: number): ScanResult {
    const end = this.#at + characters;
    for (; this.#isKnown; this.#isKnown = this.#flow.length > 0 ? this.#readFlow() : this.#readLine()) {
      if (this.#flow.length === 0 && this.#at >= this.#text.length) return "valid";
      if (this.#at > end) return "more";
    }
    return "unknown";
  }

  #readLine(): boolean {
    const text = this.#text;
    this.#lineStart = this.#at;
    const at = skipSpaces(text, this.#at);
    const code = text.charCodeAt(at);
    if (isLineEnd(text, at) || code === HASH) return this.#skipLine(at);
    if (code === TAB) return false;
    const indent = at - this.#lineStart;
    if (indent === 0 && isEndMarker(text, at)) return this.#readEnd(at + 3);
    const isItem = isDash(text, at);
    if (this.#isPending) {
      this.#isPending = false;
      const { kind, indent: outer } = this.#top;
      if (indent > outer || (indent === outer && kind === "map" && isItem)) return this.#readNode(at);
      this.#anchor = undefined;
    }
    while (this.#top.indent > indent) this.#pop();
    // A sequence may stand at the indentation of the key that it belongs to.
    if (this.#top.kind === "seq" && this.#top.indent === indent && !isItem) {
      this.#pop();
    }
    const { kind, indent: own } = this.#top;
    if (own !== indent) return false;
    return kind === "seq" ? this.#readItem(at) : this.#readEntry(at, "key");
  }

  /** Reads a node that may be a collection. */
  #readNode(at: number): boolean {
    if (!isDash(this.#text, at)) return this.#readEntry(at, "node");
    return this.#push("seq", at - this.#lineStart) && this.#readItem(at);
  }

  /** Reads an item from its dash, and those that begin within it on the same line. */
  #readItem(dash: number): boolean {
    const text = this.#text;
    for (let at = skipSpaces(text, dash + 1); ; at = skipSpaces(text, at + 1)) {
      const code = text.charCodeAt(at);
      if (isLineEnd(text, at) || code === HASH) return this.#expectNode(at);
      if (code === TAB) return false;
      if (!isDash(text, at)) return this.#readEntry(at, "node");
      if (!this.#push("seq", at - this.#lineStart)) return false;
    }
  }

  /** Reads the value behind a colon or a marker. */
  #readValue(from: number): boolean {
    const at = skipBlanks(this.#text, from);
    if (isLineEnd(this.#text, at)) return this.#expectNode(at);
    if (at === from) return false;
    return this.#text.charCodeAt(at) === HASH ? this.#expectNode(at) : this.#readEntry(at, "value");
  }

  #expectNode(at: number): boolean {
    this.#isPending = true;
    return this.#skipLine(at);
  }

  /** Reads a scalar, a key with its value, or the start of a flow collection. */
  #readEntry(start: number, position: Position): boolean {
    const text = this.#text;
    let at = start;
    let anchor: string | undefined;
    if (text.charCodeAt(at) === AMPERSAND) {
      anchor = readName(text, at + 1);
      if (anchor === undefined || this.#anchor !== undefined) return false;
      const behind = at + 1 + anchor.length;
      at = skipBlanks(text, behind);
      if (isLineEnd(text, at) || (text.charCodeAt(at) === HASH && at > behind)) {
        this.#anchor = anchor;
        return position !== "key" && this.#expectNode(at);
      }
      if (at === behind || isDash(text, at)) return false;
    }
    const code = text.charCodeAt(at);
    if (code === PIPE || code === GREATER) {
      this.#noteAnchor(anchor ?? this.#takeAnchor());
      return position !== "key" && this.#readBlock(at);
    }
    if (code === OPEN_LIST || code === OPEN_MAP) {
      this.#at = at;
      return position !== "key" && this.#openFlow(anchor ?? this.#takeAnchor());
    }
    const end = this.#endOfScalar(at, { anchor, isFlow: false });
    if (end < 0) return false;
    const colon = skipBlanks(text, end);
    if (!isColon(text, colon)) {
      if (position === "key") return false;
      this.#noteAnchor(anchor ?? this.#takeAnchor());
      return this.#endScalar(at, end);
    }
    const isKey = position !== "value" && code !== STAR && colon - start <= MAX_KEY;
    if (!isKey || text.slice(at, end).includes("\n")) return false;
    if (position === "node" && !this.#push("map", start - this.#lineStart)) return false;
    this.#noteAnchor(anchor);
    this.#note(at, end);
    return this.#readValue(colon + 1);
  }

  /** Ends a scalar that is no key: a plain one may go on in the next lines. */
  #endScalar(start: number, firstEnd: number): boolean {
    const text = this.#text;
    const code = text.charCodeAt(start);
    let end = firstEnd;
    if (code !== QUOTE && code !== APOSTROPHE && code !== STAR) {
      for (let at = this.#findContinuation(end); at >= 0; at = this.#findContinuation(end)) {
        end = endOfWords(text, at, false);
        if (isColon(text, skipBlanks(text, end))) return false;
      }
    }
    this.#note(start, end);
    return this.#endLine(end);
  }

  /** The first character of the next line of a plain scalar whose line ends at `end`; -1 if there is none. */
  #findContinuation(end: number): number {
    const text = this.#text;
    let at = skipBlanks(text, end);
    while (isLineEnd(text, at) && at < text.length) {
      const lineStart = nextLine(text, at);
      at = skipSpaces(text, lineStart);
      if (isLineEnd(text, at)) continue;
      const code = text.charCodeAt(at);
      const isOver = code === HASH || code === TAB || at - lineStart <= this.#top.indent;
      return isOver || (at === lineStart && isEndMarker(text, at)) ? -1 : at;
    }
    return -1;
  }

  #readBlock(start: number): boolean {
    const found = scanBlock(this.#text, start, this.#top.indent);
    if (found === undefined) return false;
    const { scalar, indent, next } = found;
    this.#at = next;
    if (this.#text.startsWith(`${" ".repeat(indent)}ko://`, scalar.bodyStart)) {
      // The yaml package needs the indentation of the block around a scalar whose header has digits.
      if (/\d/.test(this.#text.slice(start, scalar.headerEnd))) return false;
      this.scalars.push(scalar);
    }
    return true;
  }

  /** Reads a token of a flow collection, with the blanks before it. */
  #readFlow(): boolean {
    const text = this.#text;
    const frame = this.#flow.at(-1);
    if (frame === undefined || !this.#skipFlowBlanks(frame)) return false;
    const at = this.#at;
    const code = text.charCodeAt(at);
    const { kind, state } = frame;
    if (code === CLOSE_LIST || code === CLOSE_MAP) {
      return (code === CLOSE_LIST) === (kind === "seq") && this.#closeFlow();
    }
    if (code === COMMA) {
      frame.state = "start";
      this.#at++;
      return state !== "start";
    }
    if (state === "end") return false;
    if (state !== "key") return this.#readFlowNode(frame);
    frame.state = "value";
    this.#at++;
    const isValueNext = frame.isQuoted || isBlank(text, at + 1) || isFlowSign(text, at + 1);
    return code === COLON && isValueNext && frame.isSameLine;
  }

  #readFlowNode(frame: FlowFrame): boolean {
    const text = this.#text;
    const isKey = frame.kind === "map" && frame.state === "start";
    let anchor: string | undefined;
    if (text.charCodeAt(this.#at) === AMPERSAND) {
      anchor = readName(text, this.#at + 1);
      if (anchor === undefined || isKey) return false;
      const behind = this.#at + 1 + anchor.length;
      this.#at = skipBlanks(text, behind);
      if (this.#at === behind) return false;
    }
    const start = this.#at;
    const code = text.charCodeAt(start);
    frame.state = isKey ? "key" : "end";
    if (code === OPEN_LIST || code === OPEN_MAP) return !isKey && this.#openFlow(anchor);
    const end = this.#endOfScalar(start, { anchor, isFlow: true });
    if (end <= start) return false;
    this.#noteAnchor(anchor);
    this.#note(start, end);
    this.#at = end;
    if (!isKey) return true;
    frame.isQuoted = code === QUOTE || code === APOSTROPHE;
    frame.isSameLine = true;
    // JSON has keys of any length.
    if (code === STAR || (this.#top.kind !== "root" && end - start > MAX_KEY)) return false;
    return !text.slice(start, end).includes("\n");
  }

  /** Skips blanks, line ends and comments in a flow collection, whose lines need no indentation for Go's parsers. */
  #skipFlowBlanks(frame: FlowFrame): boolean {
    const text = this.#text;
    for (;;) {
      const at = skipBlanks(text, this.#at);
      const isComment = text.charCodeAt(at) === HASH && (at > this.#at || at === this.#lineStart);
      this.#at = at;
      if (!isComment && !(isLineEnd(text, at) && at < text.length)) return true;
      this.#skipLine(at);
      frame.isSameLine = false;
      this.#lineStart = this.#at;
      if (isMarker(text, this.#at)) return false;
    }
  }

  #openFlow(anchor: string | undefined): boolean {
    const kind = this.#text.charCodeAt(this.#at) === OPEN_LIST ? "seq" : "map";
    this.#noteAnchor(anchor);
    if (anchor !== undefined) this.#open.add(anchor);
    this.#flow.push({ kind, anchor, state: "start", isQuoted: false, isSameLine: true });
    this.#at++;
    return !this.isTooDeep;
  }

  #closeFlow(): boolean {
    this.#at++;
    const anchor = this.#flow.pop()?.anchor;
    if (anchor !== undefined) this.#open.delete(anchor);
    return this.#flow.length > 0 || this.#endLine(this.#at);
  }

  /** The end of an alias, a quoted scalar, or the first line of a plain one; -1 if it is not known. */
  #endOfScalar(
    start: number,
    { anchor, isFlow }: { readonly anchor: string | undefined; readonly isFlow: boolean },
  ): number {
    const text = this.#text;
    const code = text.charCodeAt(start);
    if (code === QUOTE || code === APOSTROPHE) return endOfQuoted(text, start);
    if (code !== STAR) return endOfPlain(text, start, isFlow);
    const name = readName(text, start + 1);
    const isNamed = name !== undefined && this.#anchors.has(name) && !this.#open.has(name);
    if (!isNamed || anchor !== undefined || this.#anchor !== undefined) return -1;
    const end = start + 1 + name.length;
    return isBlank(text, end) || (isFlow && isFlowSign(text, end)) ? end : -1;
  }

  #push(kind: "map" | "seq", indent: number): boolean {
    const anchor = this.#takeAnchor();
    this.#noteAnchor(anchor);
    if (anchor !== undefined) this.#open.add(anchor);
    this.#frames.push(this.#top);
    this.#top = { kind, indent, anchor };
    return !this.isTooDeep;
  }

  #pop(): void {
    if (this.#top.anchor !== undefined) this.#open.delete(this.#top.anchor);
    this.#top = this.#frames.pop() ?? this.#top;
  }

  #takeAnchor(): string | undefined {
    const anchor = this.#anchor;
    this.#anchor = undefined;
    return anchor;
  }

  #noteAnchor(anchor: string | undefined): void {
    if (anchor === undefined) return;
    this.#anchors.add(anchor);
    this.#open.delete(anchor);
  }

  /** Notes a scalar that may be a reference. */
  #note(start: number, end: number): void {
    if (!mayBeReference(this.#text, start)) return;
    const code = this.#text.charCodeAt(start);
    this.scalars.push({ style: code === QUOTE ? "double" : code === APOSTROPHE ? "single" : "plain", start, end });
  }

  /** Goes to the next line if only blanks and a comment follow. Go takes a comment right behind a quote or bracket, too. */
  #endLine(from: number): boolean {
    const at = skipBlanks(this.#text, from);
    return (isLineEnd(this.#text, at) || this.#text.charCodeAt(at) === HASH) && this.#skipLine(at);
  }

  /** Reads the text behind `...`: only blank lines and comments are known. */
  #readEnd(from: number): boolean {
    for (let at = from; at < this.#text.length; at = this.#at) {
      const behind = skipBlanks(this.#text, at);
      if (!isLineEnd(this.#text, behind) && this.#text.charCodeAt(behind) !== HASH) return false;
      this.#skipLine(behind);
    }
    this.#at = this.#text.length;
    return true;
  }

  #skipLine(at: number): true {
    this.#at = nextLine(this.#text, at);
    return true;
  }
}
