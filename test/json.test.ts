import { describe, expect, test } from "bun:test";
import { KoError } from "../lib/errors.ts";
import {
  compareBytes,
  encodeGoJson,
  encodeIndentedGoJson,
  goTime,
  isObject,
  isTooDeep,
  keep,
  object,
  parseJson,
  parseObject,
  pickStringList,
  pickStringMap,
  pickStrings,
  quoteJson,
  readFlag,
  readNumber,
  readStrings,
} from "../lib/json.ts";
import { askGo, base64, listOf, textOf } from "./helpers/go-fixtures.ts";

const CONTROLS = Array.from({ length: 0x20 }, (_, i) => String.fromCharCode(i)).join("");

/** Values that go through JSON.parse on our side and through encoding/json on Go's. */
const VALUES: readonly (readonly [string, unknown])[] = [
  ["control characters", CONTROLS],
  ["DEL and the C1 controls", "\u007f\u0080\u0085\u009f"],
  ["what HTML would read", `<a href="x">&amp;</a>`],
  ["line and paragraph separators", "a\u2028b\u2029c"],
  ["quotes, backslashes and slashes", `"\\/'`],
  ["characters of four bytes", "😀 𝒳 \u{10ffff}"],
  ["a high surrogate alone", "a\ud800b"],
  ["a low surrogate alone", "a\udc00"],
  ["surrogates the wrong way round", "\udc00\ud800"],
  ["characters that are no characters", "\ufffe\uffff\ufeff\ufffd"],
  ["keys of several scripts", { z: 1, a: 2, é: 3, я: 4, "\uffff": 5, "😀": 6, "\u{10ffff}": 7, "\ue000": 8, Z: 9 }],
  ["keys that look like numbers", { 10: "a", 9: "b", "01": "c", "-1": "d", "": "e" }],
  ["keys with what is escaped", { "<": 1, "&": 2, "\u2028": 3, "\n": 4, '"': 5 }],
  ["keys that objects inherit", JSON.parse(`{"toString":1,"__proto__":{"a":1},"constructor":2}`)],
  ["nothing in any form", [null, "", [], {}, false, 0]],
  ["nested values", { b: [{ d: 1, c: [[[]]] }], a: { b: { a: {} } } }],
  ["numbers", [0, 1, -1, 1.5, 0.1, 1e20, 1e21, 1e-6, 1e-7, 123456789012, 9007199254740991, -9007199254740991]],
];

const TIMES: readonly string[] = [
  "2024-05-06T07:08:09Z",
  "2024-05-06T07:08:09.1Z",
  "2024-05-06T07:08:09.100000000Z",
  "2024-05-06T07:08:09.000000000Z",
  "2024-05-06T07:08:09.000000001Z",
  "2024-05-06T07:08:09.123456789Z",
  "2024-05-06T07:08:09.1234567899999Z",
  "2024-05-06T07:08:09.9999999999Z",
  "2024-05-06T07:08:09+05:30",
  "2024-05-06T07:08:09.120+05:30",
  "2024-05-06T07:08:09-11:00",
  "2024-05-06T07:08:09+00:00",
  "2024-05-06T07:08:09-00:00",
  "2024-05-06T07:08:09+23:59",
  "0000-01-01T00:00:00Z",
  "0001-01-01T00:00:00Z",
  "0000-02-29T00:00:00Z",
  "1969-12-31T23:59:59Z",
  "9999-12-31T23:59:59.999999999Z",
  "2024-02-29T00:00:00Z",
  "2024-05-06T07:08:09,50Z",
  "2024-05-06T7:08:09Z",
  // What Go refuses.
  "2023-02-29T00:00:00Z",
  "1900-02-29T00:00:00Z",
  "2024-04-31T00:00:00Z",
  "2024-00-10T00:00:00Z",
  "2024-13-10T00:00:00Z",
  "2024-05-00T00:00:00Z",
  "2024-05-06T24:00:00Z",
  "2024-05-06T07:60:00Z",
  "2024-05-06T07:08:60Z",
  "2024-05-06T07:08:09+24:00",
  "2024-05-06T07:08:09.Z",
  "2024-05-06 07:08:09Z",
  "2024-05-06t07:08:09z",
  "2024-05-06T07:08:09",
  "2024-05-06T07:08Z",
  "2024-05-06T07:08:09+0530",
  "2024-05-06T07:08:09 +05:30",
  "12024-05-06T07:08:09Z",
  "-024-05-06T07:08:09Z",
  "2024-05-06T07:08:09Z ",
  "2024-05-06T07:08:09Z\n",
  "２０２４-05-06T07:08:09Z",
  "yesterday",
];

const answers = await askGo("gojson", {
  Documents: VALUES.map(([, value]) => base64(JSON.stringify(value))),
  Times: TIMES,
});
const needsGo = test.skipIf(answers === undefined);
const text = (bytes: Uint8Array): string => new TextDecoder().decode(bytes);

describe("encodeGoJson()", () => {
  needsGo.each(VALUES.map(([name, value], i) => [name, value, i] as const))("writes %s as Go does", (_, value, i) => {
    const read: unknown = JSON.parse(JSON.stringify(value));
    expect(text(encodeGoJson(read))).toBe(textOf(listOf(answers, "Documents")[i]) ?? "nothing");
  });

  test("replaces half a character in keys too", () => {
    expect(text(encodeGoJson({ "\ud800": "\udfff" }))).toBe(`{"\ufffd":"\ufffd"}`);
  });

  test("keeps the order of a Map, and sorts the keys of an object", () => {
    const value = new Map<string, unknown>([
      ["z", { b: 1, a: 2 }],
      ["a", 1],
    ]);
    expect(text(encodeGoJson(value))).toBe(`{"z":{"a":2,"b":1},"a":1}`);
  });

  test("writes bytes, not UTF-16 units", () => {
    expect([...encodeGoJson("é")]).toEqual([0x22, 0xc3, 0xa9, 0x22]);
  });
});

describe("object()", () => {
  needsGo("leaves out what Go's omitempty leaves out", () => {
    const none = object([
      ["text", ""],
      ["flag", false],
      ["number", 0],
      ["list", []],
      ["map", {}],
      ["pointer", undefined],
      // A struct is never empty for encoding/json.
      [
        "inner",
        keep(
          object([
            ["created", keep(goTime(undefined))],
            ["size", keep(0)],
          ]),
        ),
      ],
      ["kept", keep("")],
      ["nil", keep(null)],
      ["empty", keep([])],
    ]);
    const full = object([
      ["text", "<&>"],
      ["flag", true],
      ["number", 7],
      ["list", ["", "b"]],
      ["map", { b: "", a: "1" }],
      [
        "pointer",
        keep(
          object([
            ["created", keep(goTime(""))],
            ["size", keep(0)],
          ]),
        ),
      ],
      [
        "inner",
        object([
          ["created", keep(goTime("2023-11-14T22:13:20.00000012Z"))],
          ["size", keep(1)],
        ]),
      ],
      ["kept", keep("k")],
      ["nil", keep(["n"])],
      ["empty", keep(["e"])],
    ]);
    expect([none, full].map((value) => text(encodeGoJson(value)))).toEqual(
      listOf(answers, "Structs").map((value) => textOf(value) ?? "nothing"),
    );
  });

  test("leaves out null and an empty Map", () => {
    expect([
      ...object([
        ["a", null],
        ["b", new Map()],
        ["c", "x"],
      ]),
    ]).toEqual([["c", "x"]]);
  });
});

describe("goTime()", () => {
  needsGo.each(TIMES.map((time, i) => [time, i] as const))("reads and writes %j as Go does", (time, i) => {
    const expected = listOf(answers, "Times")[i];
    let written: string | null = null;
    try {
      written = goTime(time);
    } catch (error) {
      expect(error).toBeInstanceOf(KoError);
    }
    const got: unknown = written;
    expect(got).toBe(expected);
  });

  test.each([[undefined], [""]])("says the year 1 for %p", (time) => {
    expect(goTime(time)).toBe("0001-01-01T00:00:00Z");
  });

  test("refuses an offset of 60 minutes, which Go takes for an hour", () => {
    expect(() => goTime("2024-05-06T07:08:09+01:60")).toThrow(KoError);
  });

  test("says what it was given, cut", () => {
    expect(() => goTime("x".repeat(500))).toThrow(
      new KoError(`Cannot read "${"x".repeat(99)}… as a time: RFC 3339 is wanted`),
    );
  });
});

describe("compareBytes()", () => {
  test("puts U+FFFF before U+10000, as UTF-8 does and UTF-16 does not", () => {
    expect(["\u{10000}", "\uffff", "a", "", "ab", "Z"].sort(compareBytes)).toEqual([
      "",
      "Z",
      "a",
      "ab",
      "\uffff",
      "\u{10000}",
    ]);
  });
});

describe("quoteJson()", () => {
  test.each([
    [undefined, "missing"],
    [null, "null"],
    ["a\u001bb", `"a\\u001bb"`],
    [{ a: [1] }, `{"a":[1]}`],
  ])("quotes %j", (value, expected) => {
    expect(quoteJson(value)).toBe(expected);
  });

  test("cuts what is long", () => {
    expect(quoteJson("y".repeat(200))).toBe(`"${"y".repeat(99)}…`);
  });
});

describe("nested JSON", () => {
  test.each<[string, string, boolean]>([
    ["ten thousand levels", `${"[".repeat(10_000)}${"]".repeat(10_000)}`, false],
    ["one more", `${"[".repeat(10_001)}${"]".repeat(10_001)}`, true],
    ["4 MB of brackets", "[".repeat(4_000_000), true],
    ["4 MB of braces", '{"a":'.repeat(800_000), true],
    ["4 MB of small lists", `[${"[],".repeat(1_300_000)}1]`, false],
    ["brackets in strings", `["${"[".repeat(20_000)}", "\\"${"{".repeat(20_000)}"]`, false],
    ["a string that does not end", `["${"[".repeat(20_000)}`, false],
  ])("of %s", (_name, json, expected) => {
    expect(isTooDeep(json)).toBe(expected);
    if (!expected) return;
    expect(parseJson(json)).toBeUndefined();
    expect(() => parseObject(new TextEncoder().encode(json), "it")).toThrow("it is nested more than 10000 levels deep");
  });
});

describe("parseJson()", () => {
  test.each([
    ["null", null],
    [' {"a": [1]} ', { a: [1] }],
    ["", undefined],
    ["{'a': 1}", undefined],
    ["1 2", undefined],
  ])("of %j is %j", (source, value) => {
    expect(parseJson(source)).toEqual(value);
  });
});

describe("isObject()", () => {
  test.each([
    [{}, true],
    [[], false],
    [null, false],
    ["{}", false],
  ])("of %j is %p", (value, is) => expect(isObject(value)).toBe(is));
});

describe("fields of JSON from outside", () => {
  const bytes = (json: string): Uint8Array => new TextEncoder().encode(json);

  test("are read, and left out if they are missing or null", () => {
    const value = parseObject(
      bytes(`{"n":1,"s":"a","no":null,"list":["b"],"map":{"c":"d"},"yes":true,"off":false}`),
      "x",
    );
    expect({
      number: readNumber(value["n"], "n"),
      strings: readStrings(value["list"], "list"),
      picked: pickStrings(value, ["s", "no", "gone"], "x"),
      list: [pickStringList(value, "list", "x"), pickStringList(value, "no", "x")],
      map: [pickStringMap(value, "map", "x"), pickStringMap(value, "gone", "x")],
      flag: [readFlag(value, "yes", "x"), readFlag(value, "off", "x"), readFlag(value, "gone", "x")],
    }).toEqual({
      number: 1,
      strings: ["b"],
      picked: { s: "a" },
      list: [{ list: ["b"] }, {}],
      map: [{ map: { c: "d" } }, {}],
      flag: [{ yes: true }, {}, {}],
    });
  });

  test.each<[string, () => unknown, string]>([
    ["broken JSON", () => parseObject(bytes("{"), "x"), "Cannot read x: it is not JSON"],
    ["a list", () => parseObject(bytes("[]"), "x"), "Cannot read x: it is not a JSON object"],
    ["a fraction", () => readNumber(1.5, "n"), "Cannot read n: 1.5 is not a whole number"],
    ["a number that is not safe", () => readNumber(2 ** 53, "n"), `Cannot read n: ${2 ** 53} is not a whole number`],
    ["a mixed list", () => readStrings(["a", 1], "l"), "Cannot read l: it is not a list of strings"],
    ["text for a list", () => pickStringList({ l: "a" }, "l", "x"), "Cannot read l of x: it is not a list of strings"],
    ["a number for text", () => pickStrings({ s: 1 }, ["s"], "x"), "Cannot read s of x: 1 is not a string"],
    ["a mixed map", () => pickStringMap({ m: { a: 1 } }, "m", "x"), "Cannot read m of x: it is not a map of strings"],
    ["text for a flag", () => readFlag({ f: "no" }, "f", "x"), 'Cannot read f of x: "no" is not a boolean'],
  ])("%s is refused", (_name, read, message) => {
    expect(read).toThrow(new KoError(message));
  });
});

describe("encodeIndentedGoJson()", () => {
  const encode = (value: unknown): string => new TextDecoder().decode(encodeIndentedGoJson(value));

  test("keeps the order of fields, indents by two blanks, and ends with a line end", () => {
    const value = { b: [1, { a: "x" }], a: undefined, c: true };
    expect(encode(value)).toBe('{\n  "b": [\n    1,\n    {\n      "a": "x"\n    }\n  ],\n  "c": true\n}\n');
  });

  test("escapes as encodeGoJson()", () => {
    const texts = [CONTROLS, "<a>&\u2028\u2029", "a\ud800b", "\\ud800", "😀\udc00", '"\\/'];
    const compact = new TextDecoder().decode(encodeGoJson(texts));
    expect(encode(texts)).toBe(`${compact.replace("[", "[\n  ").replaceAll('","', '",\n  "').replace(/]$/, "\n]")}\n`);
  });
});
