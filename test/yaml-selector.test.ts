import { describe, expect, test } from "bun:test";
import { UsageError } from "../lib/errors.ts";
import { parseSelector } from "../lib/yaml-selector.ts";
import { askGo, listOf } from "./helpers/go-fixtures.ts";

const LABELS: readonly Readonly<Record<string, string>>[] = [
  {},
  { app: "web" },
  { app: "db", tier: "back" },
  { app: "", tier: "front" },
  { "example.com/app": "web", size: "10" },
  { size: "9223372036854775807", in: "notin" },
  { size: "9223372036854775808" },
  { size: "-5", "!x": "y" },
  { size: "abc", "a b": "c", notin: "in" },
  { size: "+7" },
];

/** Blanks at the ends count. */
const SELECTORS = [
  ..."|app|!app|app=web|app==web|app!=web|app = web|app=|app!=|app=,tier|app in (web)|app in (web,db)".split("|"),
  ..." | ! app |app\t=\nweb|app in ( web , db )|app notin (web)|app in ()|app notin ()|app in (,)|app in (web,)".split(
    "|",
  ),
  ..."app in (,web)|app in (web,,db)|app in(web)|app in (in,notin)|in in (notin)|in|notin|!in|in=notin".split("|"),
  ..."notin notin (in)|in,notin|app,tier|app,!tier|app=db,tier=back|app!=web,tier!=back|app=web,app=db".split("|"),
  ..."example.com/app=web|!example.com/app|example.com/app in (web)|a.b-c.d9/E_f.g-h=I_j.k-l|size>9".split("|"),
  ..."size > 10|size<10|size<0|size>9223372036854775806|size<9223372036854775807|size>007|x=1.0|x=a".split("|"),
  "size=9223372036854775808",
  `${"k".repeat(63)}=${"v".repeat(63)}`,
  `${"p".repeat(253)}/a`,
  `app in (${"v".repeat(63)})`,
  // What is none:
  ...",|app,|,app|app,,tier|app tier|app=web tier=x|app=web=x|app===web|=web|!=web|!|!!app|!app=web".split("|"),
  ..."!app in (x)|app in|app in (|app in (web|app in (web,|app in (web db)|app in web|app in (web))".split("|"),
  ..."app in (=)|app (web)|(app)|app in ((web))|app notin|app=(web)|app=!web|app!web|app>|app>x|app<1.5".split("|"),
  ..."size>-5|size>|size>9223372036854775808|size>1,|app=>web|app=-web|app=web-|app=we/b|app=wéb|-app".split("|"),
  ..."app=a b|app-|app.|_app|/app|example.com/|a/b/c|Example.com/app|example..com/app|-x.com/a|x_y/a".split("|"),
  ...'app=\u00a0|app in (a;b)|"app"|{app=web}'.split("|"),
  "k".repeat(64),
  `app=${"v".repeat(64)}`,
  `${"p".repeat(254)}/a`,
  `app in (a,${"v".repeat(64)})`,
];

/** Whether a selector matches each set of labels, or null if it is none. */
function matchesOf(text: string): readonly boolean[] | null {
  try {
    const selector = parseSelector(text);
    return LABELS.map((labels) => selector(new Map(Object.entries(labels))));
  } catch (error) {
    if (error instanceof UsageError) return null;
    throw error;
  }
}

/** Random selectors, most of them broken: words and signs in any order. */
function randomSelectors(count: number): readonly string[] {
  const words = "app|web|in|notin|size|10|tier|=|==|!=|!|,|(|)|>|<| | ||a/b|-".split("|");
  let state = 12345;
  const below = (n: number): number => {
    state = (Math.imul(state, 1103515245) + 12345) >>> 0;
    return (state >>> 8) % n;
  };
  return Array.from({ length: count }, () =>
    Array.from({ length: 1 + below(9) }, () => words[below(words.length)]).join(""),
  );
}

const selectors = [...SELECTORS, ...randomSelectors(3000)];
const answer = await askGo("gokube", { selectors, labels: LABELS });

describe("k8s.io/apimachinery/pkg/labels", () => {
  test.skipIf(answer === undefined)("reads the same selectors and matches the same labels", () => {
    const theirs = listOf(answer, "matches");
    expect(selectors.map((text) => ({ text, matches: matchesOf(text) }))).toEqual(
      selectors.map((text, i) => ({ text, matches: booleans(theirs[i]) })),
    );
    // Enough of both kinds to mean something.
    const valid = theirs.filter((matches) => matches !== null).length;
    expect(valid).toBeGreaterThan(300);
    expect(theirs.length - valid).toBeGreaterThan(1000);
  });
});

function booleans(value: unknown): readonly boolean[] | null {
  return Array.isArray(value) ? value.map((item) => item === true) : null;
}

describe("parseSelector()", () => {
  test.each<[string, readonly boolean[]]>([
    ["", [true, true, true]],
    ["app", [false, true, true]],
    ["!app", [true, false, false]],
    ["app=web", [false, true, false]],
    ["app!=web", [true, false, true]],
    ["app in (web, db)", [false, true, true]],
    ["app notin (web)", [true, false, true]],
    ["app,tier=back", [false, false, true]],
  ])("matches with %j", (text, matches) => {
    expect(matchesOf(text)?.slice(0, 3)).toEqual([...matches]);
  });

  test.each([
    ["app=web,", "at character 9: it ends there, wanted a key or !"],
    ["app web", 'at character 5: there is "web", wanted one of = == != in notin > <, a comma or the end'],
    ["app in (a b)", 'at character 11: there is "b", wanted a comma or )'],
    ["app in web", 'at character 8: there is "web", wanted ( and values'],
    ["!", "at character 2: it ends there, wanted a key"],
    ["a=b c", 'at character 5: there is "c", wanted a comma or the end'],
    ["a=(", 'at character 3: there is "(", wanted a value'],
    ["a=-b", 'at character 3: "-b": a value consists of letters'],
    ["a/b/c", 'at character 1: "a/b/c": a key has at most one slash'],
    ["A.com/x", 'at character 1: "A.com/x": the part of a key before the slash is a lower-case DNS name'],
    ["a-", 'at character 1: "a-": a key consists of letters'],
    [`x,${"a".repeat(64)}`, `its name has 64 characters, wanted at most 63`],
    [`x=${"a".repeat(64)}`, `it has 64 characters, wanted at most 63`],
    ["a>b", 'at character 3: "b": > compares whole numbers'],
  ])("refuses %j and says where", (text, message) => {
    expect(() => parseSelector(text)).toThrow(UsageError);
    expect(() => parseSelector(text)).toThrow(message);
  });
});
