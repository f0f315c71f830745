/**
 * Cuts items out of the sequences of Kubernetes Lists, for yaml-objects.ts, without a change of other bytes.
 */
import type { CST } from "yaml";
import type { YamlEdit } from "./yaml.ts";

/** The first and last index of a run of items to cut. */
type Run = readonly [first: number, last: number];

interface CutOptions {
  readonly text: string;
  readonly runs: readonly Run[];
}

/**
 * Cuts items out of a YAML or JSON sequence, with their dashes, commas and comments.
 *
 * A comment belongs to the item on whose line it is, or else to the next item; one that is indented deeper than the dash
 * belongs to the item before it.
 *
 * @param token the sequence, from the tokens of `text`, which has no errors
 * @param options.keep one value per item, in order; at least one is true
 * @throws {RangeError} If the token is not a sequence of as many items as `keep` has.
 */
export function cutItems(
  token: CST.Token,
  { text, keep }: { readonly text: string; readonly keep: readonly boolean[] },
): readonly YamlEdit[] {
  const runs = runsOf(keep);
  if (token.type === "block-seq") return cutBlockItems(token, { text, runs });
  if (token.type === "flow-collection") return cutFlowItems(token, { text, runs });
  throw new RangeError(`a ${token.type} has no items`);
}

function runsOf(keep: readonly boolean[]): readonly Run[] {
  const runs: Run[] = [];
  for (let i = 0; i < keep.length; i++) {
    if (keep[i]) continue;
    const first = i;
    while (i + 1 < keep.length && !keep[i + 1]) i++;
    runs.push([first, i]);
  }
  return runs;
}

function cutBlockItems(sequence: CST.BlockSequence, { text, runs }: CutOptions): readonly YamlEdit[] {
  const items = sequence.items.flatMap((item) => {
    const dash = item.start.find(({ type }) => type === "seq-item-ind");
    return dash === undefined ? [] : [{ dash: dash.offset, end: endOfItem(item) }];
  });
  const at = (index: number): { readonly dash: number; readonly end: number } => {
    const item = items[index];
    if (item === undefined) throw new RangeError(`a sequence of ${items.length} items has no item ${index}`);
    return item;
  };
  // An item begins with the comments right above its dash.
  const startOf = (index: number): number => {
    const { dash } = at(index);
    const floor = index === 0 ? 0 : lineAfter(text, at(index - 1).end);
    let start = text.lastIndexOf("\n", dash - 1) + 1;
    const column = dash - start;
    while (start > floor) {
      const above = text.lastIndexOf("\n", start - 2) + 1;
      const indent = commentIndent(text, above);
      if (above < floor || indent === undefined || indent > column) break;
      start = above;
    }
    return start;
  };
  const endOf = (index: number): number => {
    if (index + 1 < items.length) return startOf(index + 1);
    const { dash, end } = at(index);
    const column = dash - (text.lastIndexOf("\n", dash - 1) + 1);
    let after = lineAfter(text, end);
    for (let indent = commentIndent(text, after); indent !== undefined && indent > column;) {
      after = lineAfter(text, after + 1);
      indent = commentIndent(text, after);
    }
    return after;
  };
  return runs.map(([first, last]) => {
    const { dash } = at(first);
    const line = text.slice(text.lastIndexOf("\n", dash - 1) + 1, dash);
    // If the first dash is not at the start of a line (`: - a`), the next dash moves to its place.
    if (!/^[ \t\uFEFF]*$/.test(line)) return { start: dash, end: at(last + 1).dash, text: "" };
    return { start: startOf(first), end: endOf(last), text: "" };
  });
}

function cutFlowItems(sequence: CST.FlowCollection, { text, runs }: CutOptions): readonly YamlEdit[] {
  const commas = sequence.items.flatMap(({ start }) => start.filter(({ type }) => type === "comma"));
  const items = sequence.items.filter(({ key, sep, value, start }) => {
    return key !== undefined || sep !== undefined || value !== undefined || start.some(isContent);
  });
  const comma = (index: number): number => commas[index]?.offset ?? -1;
  // An item begins behind the preceding comma, and behind a comment on the line of that comma.
  const startOf = (index: number): number => {
    const behind = index === 0 ? sequence.start.offset + 1 : comma(index - 1) + 1;
    const comment = /^[ \t]+#[^\r\n]*/.exec(text.slice(behind, lineAfter(text, behind)));
    return behind + (comment?.[0].length ?? 0);
  };
  return runs.flatMap(([first, last]): readonly YamlEdit[] => {
    const item = items[last];
    if (item === undefined) throw new RangeError(`a sequence of ${items.length} items has no item ${last}`);
    if (last + 1 < items.length) return [{ start: startOf(first), end: startOf(last + 1), text: "" }];
    // Without a comma behind the last item, the comma before the run is cut.
    if (comma(last) !== -1) return [{ start: startOf(first), end: startOf(last + 1), text: "" }];
    const before = comma(first - 1);
    return [
      { start: before, end: before + 1, text: "" },
      { start: startOf(first), end: endOfItem(item), text: "" },
    ];
  });
}

/** Returns the indentation of a comment that has a line of its own, else undefined. */
function commentIndent(text: string, lineStart: number): number | undefined {
  let at = lineStart;
  while (text[at] === " " || text[at] === "\t") at++;
  return text[at] === "#" ? at - lineStart : undefined;
}

/** Returns the start of the line after `offset`, or `offset` itself if a line begins there. */
function lineAfter(text: string, offset: number): number {
  if (text[offset - 1] === "\n") return offset;
  const newline = text.indexOf("\n", offset);
  return newline === -1 ? text.length : newline + 1;
}

function isContent({ type }: CST.SourceToken): boolean {
  return type !== "space" && type !== "comment" && type !== "newline" && type !== "comma";
}

/** Returns the end of an item's last token that is neither blank nor a comment, without recursion. */
function endOfItem(item: CST.CollectionItem): number {
  let at: CST.CollectionItem = item;
  for (;;) {
    const last: CST.Token | undefined =
      at.value ?? at.sep?.findLast(isContent) ?? at.key ?? at.start.findLast(isContent);
    if (last === undefined) throw new RangeError("an item without tokens");
    if (last.type === "block-map" || last.type === "block-seq") {
      const inner: CST.CollectionItem | undefined = last.items.findLast(
        ({ start, key, sep, value }: CST.CollectionItem) => {
          return value !== undefined || key !== undefined || sep !== undefined || start.some(isContent);
        },
      );
      if (inner === undefined) throw new RangeError("a block collection without items");
      at = inner;
      continue;
    }
    if (last.type === "flow-collection") {
      const [close] = last.end;
      return close === undefined ? last.offset : close.offset + close.source.length;
    }
    if (last.type === "block-scalar") {
      const header = last.props.at(-1);
      const start = header !== undefined && "source" in header ? header.offset + header.source.length : last.offset;
      return start + last.source.length;
    }
    return "source" in last ? last.offset + last.source.length : last.offset;
  }
}
