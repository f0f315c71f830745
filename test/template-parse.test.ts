import { describe, expect, test } from "bun:test";
import { UsageError } from "../lib/errors.ts";
import { joinReads } from "../lib/template-data.ts";
import type { TemplatePlace } from "../lib/template-lex.ts";
import { parseTemplate } from "../lib/template-parse.ts";

/** The error of a template: its message without the beginning, and its hint. */
function refusal(text: string, place: TemplatePlace = { setting: "ldflags" }): readonly [string, string | undefined] {
  try {
    parseTemplate(text, place);
  } catch (error) {
    if (error instanceof UsageError) return [error.message.replace(/^Cannot use ldflags: /, ""), error.hint];
    throw error;
  }
  throw new Error(`${JSON.stringify(text)} was not refused`);
}

describe("parseTemplate() refuses", () => {
  test.each<[string, string, string | undefined]>([
    ["{{define `x`}}{{end}}", '"define" is not supported in templates of ko', undefined],
    ["{{template `x`}}", '"template" is not supported in templates of ko', undefined],
    ["{{block `x` .}}{{end}}", '"block" is not supported in templates of ko', undefined],
    ["{{call .Env.A}}", 'the function "call" is not supported in templates of ko', undefined],
    ["{{.Env.A | html}}", 'the function "html" is not supported in templates of ko', undefined],
    ["{{js .Env.A}}", 'the function "js" is not supported in templates of ko', undefined],
    ["{{urlquery .Env.A}}", 'the function "urlquery" is not supported in templates of ko', undefined],
    ["{{1i}}", "complex numbers are not supported", undefined],
    ["{{1+2i}}", 'there is no arithmetic, wanted a blank before "+"', undefined],
    ["{{prnt 1}}", 'there is no function "prnt", wanted perhaps "print"', undefined],
    [
      "{{.Env.A | tolower}}",
      'there is no function "tolower", wanted one of and, or, not, eq, ne, lt, le, gt, ge, len, index, slice, print, printf, println',
      undefined,
    ],
    ['{{env "TAG"}}', 'there is no function "env"', "Type: .Env.TAG"],
    ["{{env}}", 'there is no function "env"', "Type: .Env.NAME"],
    ['{{envOrDefault "TAG" "x"}}', 'there is no function "envOrDefault"', 'Type: or (index .Env "TAG") "DEFAULT"'],
    ['{{ .Env.A | default "x" }}', 'there is no function "default"', 'Type: or (index .Env "x") "DEFAULT"'],
    ['{{time "2006"}}', 'there is no function "time"', "Type: .Date"],
    ["{{.Foo}}", "there is no .Foo, wanted one of Env, GoEnv, Git, Date, Timestamp", undefined],
    ["{{.env.A}}", "there is no .env, the nearest is .Env", undefined],
    ["{{.Timestmp}}", "there is no .Timestmp, the nearest is .Timestamp", undefined],
    ["{{if false}}{{.Foo}}{{end}}", "there is no .Foo, wanted one of Env, GoEnv, Git, Date, Timestamp", undefined],
    ["{{.Version}}", "there is no .Version", "Type: {{.Git.Tag}}"],
    ["{{.Tag}}", "there is no .Tag", "Type: {{.Git.Tag}}"],
    ["{{.Commit}}", "there is no .Commit", "Type: {{.Git.FullCommit}}"],
    ["{{.ShortCommit}}", "there is no .ShortCommit", "Type: {{.Git.ShortCommit}}"],
    ["{{.Branch}}", "there is no .Branch", "Type: {{.Git.Branch}}"],
    ["{{.Os}}", "there is no .Os", "Type: {{.GoEnv.GOOS}}"],
    ["{{.Arch}}", "there is no .Arch", "Type: {{.GoEnv.GOARCH}}"],
    ["{{.Now}}", "there is no .Now", "Type: {{.Date}}"],
    ["{{.VERSION}}", "there is no .VERSION", "Type: {{.Env.VERSION}}"],
    ["{{.ProjectName}}", "there is no .ProjectName, wanted one of Env, GoEnv, Git, Date, Timestamp", undefined],
    ["{{.Git.Tga}}", "there is no .Git.Tga, the nearest is .Git.Tag", undefined],
    ["{{if false}}{{.Git.Tga}}{{end}}", "there is no .Git.Tga, the nearest is .Git.Tag", undefined],
    ["{{with .Git}}{{.Tga}}{{end}}", "there is no .Git.Tga, the nearest is .Git.Tag", undefined],
    ["{{$g := $.Git}}{{$g.Tga}}", "there is no .Git.Tga, the nearest is .Git.Tag", undefined],
    ['{{(index . "Git").Tga}}', "there is no .Git.Tga, the nearest is .Git.Tag", undefined],
    [
      "{{.Git.Version}}",
      "there is no .Git.Version, wanted one of Branch, Tag, ShortCommit, FullCommit, CommitDate, CommitTimestamp, IsDirty, IsClean, TreeState",
      undefined,
    ],
    ["{{.Env.A-B}}", '"-" cannot stand behind ".A", wanted a blank', 'Type: index .Env "A-B"'],
    ["{{.Git.A-B}}", '"-" cannot stand behind ".A", wanted a blank', undefined],
    ['{{printf "%b" 1}}', 'printf has no verb "%b", wanted one of s q v d x X t c f g e %', undefined],
    ['{{printf "%5"}}', 'printf has no verb "%5", wanted one of s q v d x X t c f g e %', undefined],
    ['{{printf "%[1]d" 1}}', 'printf has no verb "%[", wanted one of s q v d x X t c f g e %', undefined],
    ['{{printf "%*d" 1 2}}', 'printf has no verb "%*", wanted one of s q v d x X t c f g e %', undefined],
    ['{{printf "%é" 1}}', 'printf has no verb "%", wanted one of s q v d x X t c f g e %', undefined],
    ['{{printf "%9999d" 1}}', 'the width in "%9999d" is too large, wanted at most 1000', undefined],
    ["{{if true}}", 'this "if" has no {{end}}', undefined],
    ["{{if true}}{{else}}", 'this "if" has no {{end}}', undefined],
    ["{{end}}", 'this "end" belongs to nothing', undefined],
    ["{{break}}", '"break" is outside of a "range"', undefined],
    ["{{if}}{{end}}", '"if" ends too early', undefined],
    ["{{}}", "the action ends too early", undefined],
    ["{{(}}", 'this "(" is not closed', undefined],
    ["{{1 2", "the action is not closed, wanted }}", undefined],
    ["{{/* x", "the comment does not end, wanted */}}", undefined],
    ['{{"x}}', "a quoted text does not end on its line", undefined],
    ["{{1 | 2}}", '"2" stands behind "|" and takes no value, wanted a function', undefined],
    ["{{$versoin := 1}}{{$version}}", 'there is no variable "$version", the nearest is "$versoin"', undefined],
    ["{{.Env.A , 1}}", '"," is not expected in the action', undefined],
    ["{{\u00a0}}", "the character U+00A0 cannot stand in an action", undefined],
  ])("%s", (text, why, hint) => {
    const [message, found] = refusal(text);
    expect(message).toEndWith(`: ${why}`);
    expect(found).toBe(hint);
  });

  test.each<[string, string, string]>([
    ["{{.Env}}", ".Env into the binary, secrets included", "{{.Env.NAME}}"],
    ["{{ index .Env }}", ".Env into the binary, secrets included", "{{.Env.NAME}}"],
    ["{{.GoEnv}}", ".GoEnv into the binary, secrets included", "{{.GoEnv.GOOS}}"],
    ["{{.Git}}", ".Git into the binary", "{{.Git.Tag}}"],
    ["{{.}}", "the data into the binary, secrets included", "{{.Env.NAME}}"],
    ["{{$}}", "the data into the binary, secrets included", "{{.Env.NAME}}"],
    ["{{if false}}{{.Env}}{{end}}", ".Env into the binary, secrets included", "{{.Env.NAME}}"],
    ["{{with .Env}}{{.}}{{end}}", ".Env into the binary, secrets included", "{{.Env.NAME}}"],
    ["{{$e := .Env}}{{$e}}", ".Env into the binary, secrets included", "{{.Env.NAME}}"],
    ["{{print .Env}}", ".Env into the binary, secrets included", "{{.Env.NAME}}"],
    ["{{.Env | println}}", ".Env into the binary, secrets included", "{{.Env.NAME}}"],
    ['{{printf "%v" $.Env}}', ".Env into the binary, secrets included", "{{.Env.NAME}}"],
    ['{{$x := printf "%v" .}}', "the data into the binary, secrets included", "{{.Env.NAME}}"],
    ["{{or .Env .Env}}", ".Env into the binary, secrets included", "{{.Env.NAME}}"],
    ['{{index . "Env"}}', ".Env into the binary, secrets included", "{{.Env.NAME}}"],
    ["{{(.Env)}}", ".Env into the binary, secrets included", "{{.Env.NAME}}"],
  ])("whole maps: %s", (text, all, type) => {
    const [message, hint] = refusal(text);
    expect(message).toEndWith(`: this writes all of ${all}, wanted one value`);
    expect(hint).toBe(`Type: ${type}`);
  });
});

describe("parseTemplate() tells the place", () => {
  const place: TemplatePlace = {
    setting: "ldflags of builds[1]",
    file: ".ko.yaml",
    // Two lines of a block scalar, the second one indented by six blanks.
    marks: [
      [0, 7, 9],
      [11, 8, 7],
    ],
  };

  test.each<[string, string]>([
    ["-X a={{.Foo}}", "7:16: {{.Foo}}: there is no .Foo"],
    ["-X a={{   .Foo }}", "7:19: {{ .Foo }}: there is no .Foo"],
    ["0123456789\n-X {{ .Foo }}", "8:13: {{ .Foo }}: there is no .Foo"],
    ["{{.Git.Tag}}{{.Git.Foo}}", "8:14: {{.Git.Foo}}: there is no .Git.Foo"],
    ["0123456789\n-X {{ if true", "8:10: {{ if true: the action is not closed"],
    ["a {{ print .Env.A \n (print }}", '8:16: {{ print .Env.A (print }}: this "(" is not closed'],
  ])("%j", (text, expected) => {
    expect(refusal(text, place)[0]).toStartWith(`Cannot use ldflags of builds[1] at .ko.yaml:${expected}`);
  });

  test("without a file, and cuts long actions", () => {
    expect(refusal("{{.Foo}}", { setting: "--ldflags" })[0]).toStartWith("Cannot use --ldflags: {{.Foo}}: there is no");
    const [message] = refusal(`{{ print ${"1 ".repeat(100)} .Foo }}`);
    expect(message).toStartWith(`{{ print ${"1 ".repeat(35)}1…: there is no .Foo`);
  });
});

describe("parseTemplate() lists the data that a template reads", () => {
  const all: Readonly<Record<string, "all">> = { Env: "all", GoEnv: "all", Git: "all", Date: "all", Timestamp: "all" };

  test.each<[string, Readonly<Record<string, readonly string[] | "all">>]>([
    ["-s -w", {}],
    ["{{.Env.A}}{{$.Env.B}}{{(.Env).C}}", { Env: ["A", "B", "C"] }],
    [
      '{{index .Env "A-B"}}{{index .Git "Tag"}}{{index . "GoEnv" "GOOS"}}',
      { Env: ["A-B"], Git: ["Tag"], GoEnv: ["GOOS"] },
    ],
    ['{{or (index .Env "A") "dev"}}', { Env: ["A"] }],
    ["{{.Date}}{{.Timestamp}}", { Date: [], Timestamp: [] }],
    ["{{if .Git.IsDirty}}{{.Git.Tag}}{{else}}{{.GoEnv.GOOS}}{{end}}", { Git: ["IsDirty", "Tag"], GoEnv: ["GOOS"] }],
    ["{{with .Git}}{{.Tag}}{{$.Env.A}}{{end}}", { Git: ["Tag"], Env: ["A"] }],
    ["{{with $g := .Git}}{{$g.Tag}}{{else}}{{.Date}}{{end}}", { Git: ["Tag"], Date: [] }],
    ["{{$x := .}}{{$x.Env.A}}", { Env: ["A"] }],
    ["{{index .Env .Git.Tag}}", { Env: "all", Git: ["Tag"] }],
    ['{{"A" | index .Env}}', { Env: "all" }],
    ["{{index . .Env.A}}", all],
    ["{{range .GoEnv}}{{.}}{{end}}", { GoEnv: "all" }],
    ["{{range $k, $v := .Git}}{{$k}}{{$v}}{{end}}", { Git: "all" }],
    ["{{len .Env}}", { Env: "all" }],
    ["{{print .Git}}", { Git: "all" }],
    ["{{if .Env}}{{end}}", { Env: [] }],
    ["{{range .}}{{end}}", all],
    ["{{with or .Git .Env}}{{.A}}{{end}}", all],
    ['{{$x := ""}}{{range 2}}{{if $x}}{{$x.Tag}}{{end}}{{$x = .}}{{end}}', {}],
    ['{{$x := ""}}{{range 2}}{{if $x}}{{$x.Tag}}{{end}}{{$x = $.Git}}{{end}}', all],
    ["{{/* .Env.A */}}{{`.Env.B`}}", {}],
  ])("%s", (text, expected) => {
    const { reads } = parseTemplate(text, { setting: "ldflags" });
    const listed = Array.from(reads, ([root, names]) => [root, names === "all" ? names : [...names]]);
    expect(Object.fromEntries(listed)).toEqual(expected);
  });
});

test("joinReads() joins names, and all of a map with some of it", () => {
  const texts = ["{{.Env.A}}{{.Git.Tag}}", "{{.Env.B}}{{.Date}}", "{{range .Git}}{{end}}", "{{.Git.Branch}}", "plain"];
  const reads = joinReads(texts.map((text) => parseTemplate(text, { setting: "ldflags" }).reads));
  expect(Array.from(reads)).toEqual([
    ["Env", new Set(["A", "B"])],
    ["Git", "all"],
    ["Date", new Set()],
  ]);
});
