import { describe, expect, test } from "bun:test";
import { KoError, UsageError } from "../lib/errors.ts";
import { render } from "../lib/template.ts";
import type { TemplateData } from "../lib/template-data.ts";
import { parseTemplate } from "../lib/template-parse.ts";
import { askGo, listOf, textOf } from "./helpers/go-fixtures.ts";
import { generateTemplate } from "./helpers/template-generator.ts";

/** Small numbers, so that the generator's loops end. */
const data = {
  Env: { A: "x y", VERSION: "v1.2.3", EMPTY: "", DIGITS: "42", LDFLAGS: "", "A-B": "dashed", ÄB: "ä" },
  GoEnv: { GOARCH: "amd64", GOOS: "linux", GOFLAGS: "-tags=a" },
  Git: {
    Branch: "feat/x",
    Tag: "v1.0.0",
    ShortCommit: "0123456",
    FullCommit: "0123456789abcdef0123456789abcdef01234567",
    CommitDate: "2024-03-01T10:30:00Z",
    CommitTimestamp: 7,
    IsDirty: true,
    IsClean: false,
    TreeState: "dirty",
  },
  Date: "2023-11-14T22:13:20Z",
  Timestamp: 3,
} as const satisfies TemplateData;

/** Templates that must mean the same as in Go, errors included. */
const SAME: Readonly<Record<string, readonly string[]>> = {
  "text and delimiters": [
    "",
    "plain",
    "}} alone }",
    "{ { x",
    "a\n\tb",
    "é😀\u2028",
    "{{.Env.A}}",
    "{{ .Env.A }}",
    "{{\t.Env.A\r\n}}",
    "a {{- .Env.A -}} b",
    "a \n\t{{- .Env.A }}\n b",
    "a {{ .Env.A -}} \r\n\t b",
    "\u00a0{{- .Env.A -}}\u00a0",
    "{{- 3 }}",
    "{{ -3 }}",
    "{{-3}}",
    "{{- -3 -}}",
    "{{-.Env.A}}",
    "{{.Env.A-}}",
    "{{.Env.A -}}",
    "{{.Env.A - }}",
    "{{- }}",
    "{{ -}}",
    "{{-}}",
    "{{}}",
    "{{ }}",
    "{{",
    "x{{ .Env.A",
    "{{.Env.A}",
    "{{{.Env.A}}}",
    "{{.Env.A}}}}",
    "{{/* comment */}}",
    "a {{- /* comment */ -}} b",
    "a {{/* x */ -}} b",
    "{{ /* x */}}",
    "{{-  /* x */}}",
    "{{/* x */ }}",
    "{{/* x }}",
    "{{/* }} */}}",
    "{{/* a\nb */}}",
    "{{/**/}}",
    "{{/* x */ -}}",
    "{{// x}}",
    "{{# x}}",
    "{{1;2}}",
  ],
  "fields and variables": [
    "{{$.Env.A}}",
    "{{(.Env).A}}",
    "{{(.Env.A)}}",
    "{{((.Env)).A}}",
    "{{.Env.FOO-x}}",
    '{{index .Env "A-B"}}',
    "{{.Env.ÄB}}",
    "{{.Env .A}}",
    "{{.Env. A}}",
    "{{.Env..A}}",
    "{{..Env}}",
    "{{.5}}",
    "{{.Env.5}}",
    "{{.Env.A.B}}",
    "{{.Git.Tag.X}}",
    "{{(.Timestamp).X}}",
    "{{.Date.X}}",
    '{{(index .Git "None").X}}',
    "{{$x := .Env.A}}{{$x}}",
    "{{$x:=.Env.A}}{{$x}}",
    "{{$x := 1}}{{$x = 2}}{{$x}}",
    "{{$x := 1}}{{$x := $x}}{{$x}}",
    "{{$x}}",
    "{{$x = 1}}{{$x}}",
    "{{$ := 1}}{{$}}",
    "{{$x := .Git}}{{$x.Tag}}",
    "{{$x := .}}{{$x.Git.Tag}} {{$x.Env.A}}",
    "{{$x := $}}{{$x.Date}}",
    "{{$x, $y := 1}}",
    "{{$x :=}}",
    "{{$x := }}",
    "{{$x : = 1}}",
    "{{$x.A := 1}}",
    "{{if true}}{{$x := 1}}{{end}}{{$x}}",
    "{{$x := 1}}{{if true}}{{$x := 2}}{{end}}{{$x}}",
    "{{$x := 1}}{{if true}}{{$x = 2}}{{end}}{{$x}}",
    "{{print ($x := 1) $x}}",
    "{{and false ($x := 1)}}{{$x}}",
    "{{$1 := 5}}{{$1}}",
    "{{$x2_ä := 5}}{{$x2_ä}}",
  ],
  literals: [
    '{{"a\\tb\\"c\\x41\\u00e9\\U0001F600\\101\\\\"}}',
    '{{"\\q"}}',
    '{{"\\\'"}}',
    '{{"\\ud800"}}',
    '{{"\\x4"}}',
    '{{"\\400"}}',
    '{{"a\nb"}}',
    '{{"open}}',
    '{{`raw \\n "x"`}}',
    "{{`two\nlines`}}",
    "{{`cr\rlf`}}",
    "{{`open}}",
    "{{'a'}}",
    "{{'é'}}",
    "{{'\\n'}} {{'\\''}} {{'\\x41'}} {{'\\377'}}",
    "{{'\\\"'}}",
    "{{'ab'}}",
    "{{''}}",
    "{{'a}}",
    "{{1_000}} {{0x10}} {{0b11}} {{0o17}} {{017}} {{-3}} {{+3}} {{1.5}} {{1e3}} {{.5}} {{5.}} {{0}} {{-0}}",
    "{{0x1p4}} {{0x1.8p1}} {{0x.8p0}} {{-0x1P-2}}",
    "{{0x1e}} {{-0x1e}} {{+0xE}} {{0XfF}} {{0B1}} {{0O7}}",
    "{{1__0}}",
    "{{_1}}",
    "{{1_}}",
    "{{0x_1}} {{0_7}}",
    "{{1_.5}}",
    "{{1_0.2_5e1_0}}",
    "{{1e_5}}",
    "{{089}}",
    "{{08.5}}",
    "{{0b12}}",
    "{{0x}}",
    "{{1e}}",
    "{{1e400}}",
    "{{9223372036854775807}} {{-9223372036854775808}}",
    "{{9223372036854775808}}",
    "{{-9223372036854775809}}",
    "{{0xFFFFFFFFFFFFFFFF}}",
    "{{1x}}",
    "{{1.5.5}}",
    "{{-}}",
    "{{1e21}} {{1e20}} {{123456789.0}} {{1e-5}} {{0.0001}} {{100000.0}} {{1000000.0}} {{-0.0}} {{0.1}}",
    "{{true}} {{false}}",
    "{{nil}}",
    "{{True}}",
  ],
  pipelines: [
    '{{"a" | print}}',
    '{{"a" | printf "%s-%s" "b"}}',
    '{{"a" | print "b" | print "c"}}',
    "{{1 | 2}}",
    "{{1 | .Env.A}}",
    "{{1 | .}}",
    "{{1 | nil}}",
    '{{1 | "a"}}',
    "{{1 | }}",
    "{{1 |}}",
    "{{ | 1}}",
    "{{1 || print}}",
    "{{(1 | print) | print 2}}",
    "{{print (print (print 1))}}",
    "{{print(1)}}",
    "{{(print 1) 2}}",
    "{{(print 1}}",
    "{{print 1)}}",
    "{{()}}",
    "{{print ()}}",
    "{{.Env.A 1}}",
    "{{1 2}}",
    '{{"a" "b"}}',
    "{{true 1}}",
    "{{$.Env.A 1}}",
    "{{1 | print -1}}",
    "{{print 1-1}}",
    '{{print "a""b"}}',
    "{{print.X}}",
    "{{print .X}}",
    "{{1.X}}",
    "{{true.X}}",
    "{{nil.X}}",
    '{{"a".X}}',
    "{{print 1,2}}",
    "{{print = 1}}",
    "{{unknown}}",
    "{{.Env.A | unknown}}",
    '{{ .Git.Tag | printf "%s" | len }}',
    "{{not}}",
    "{{len}}",
    "{{len 1 2}}",
    "{{printf}}",
    "{{printf 5}}",
    "{{printf nil}}",
    "{{printf .Timestamp}}",
    "{{printf .Git.Tag}}",
    "{{index}}",
    "{{slice}}",
    "{{and}}",
    "{{ne 1}}",
    "{{lt 1 2 3}}",
  ],
  "if and with": [
    "{{if true}}a{{end}}",
    "{{if false}}a{{end}}b",
    "{{if false}}a{{else}}b{{end}}",
    "{{if false}}a{{else if true}}b{{else}}c{{end}}",
    "{{if false}}a{{else if false}}b{{else if false}}c{{else}}d{{end}}",
    "{{if 0}}a{{end}}{{if 0.0}}b{{end}}{{if ``}}c{{end}}{{if `x`}}d{{end}}{{if -1}}e{{end}}{{if 'a'}}f{{end}}",
    '{{if index .Git "None"}}a{{else}}b{{end}}',
    '{{if index .Env "NONE"}}a{{else}}b{{end}}',
    "{{if .Env}}a{{end}}{{if .Git}}b{{end}}{{if .}}c{{end}}{{if $}}d{{end}}",
    "{{if .Git.IsDirty}}-dirty{{end}}",
    "{{if not .Git.IsClean}}-dirty{{end}}",
    "{{if $x := .Env.A}}{{$x}}{{else}}none{{$x}}{{end}}",
    "{{if $x := .Env.EMPTY}}{{$x}}{{else}}none{{$x}}{{end}}",
    "{{if}}a{{end}}",
    "{{if true}}",
    "{{if true}}a{{else}}b",
    "{{if true}}{{else}}{{else}}{{end}}",
    "{{if true}}{{else if true}}{{else}}{{else}}{{end}}",
    "{{if true}}{{end}}{{end}}",
    "{{end}}",
    "{{else}}",
    "{{end x}}",
    "{{if true}}{{else x}}{{end}}",
    "{{if true}}{{else with true}}{{end}}",
    "{{if true}}a{{elseif false}}{{end}}",
    "{{iftrue}}{{end}}",
    "{{if true}} {{- /* x */ -}} {{end}}",
    "{{if\ntrue}}a{{else  if  false}}b{{end}}",
    "{{print if}}",
    "{{with .Git}}{{.Tag}}{{end}}",
    "{{with .Git.Tag}}{{.}}{{else}}none{{end}}",
    "{{with .Env.EMPTY}}{{.}}{{else}}none {{.Env.A}}{{end}}",
    "{{with .Env.EMPTY}}a{{else with .Env.A}}{{.}}{{else}}c{{end}}",
    "{{with $x := .Git.Tag}}{{$x}}{{.}}{{end}}",
    "{{with .Git.Tag}}{{$.Env.A}}{{end}}",
    "{{with .Git.Tag}}{{.Env.A}}{{end}}",
    "{{with .Env.A}}{{if true}}{{.}}{{end}}{{end}}",
    "{{with 1}}{{else if true}}{{end}}",
    "{{with}}{{end}}",
    "{{with .Env.NONE}}{{end}}",
    "{{if .Env.NONE}}{{end}}",
    '{{or .Env.NONE "d"}}',
    "{{.Env.NONE}}",
    "{{.GoEnv.NONE}}",
  ],
  range: [
    "{{range 3}}{{.}}{{end}}",
    "{{range $i := 3}}{{$i}},{{end}}",
    "{{range 0}}a{{else}}b{{end}}",
    "{{range -1}}a{{else}}b{{end}}",
    "{{range .Timestamp}}{{.}}{{end}}",
    "{{range 'a'}}{{end}}x",
    "{{range $i, $j := 3}}{{end}}",
    "{{range .Git}}{{.}};{{end}}",
    "{{range $k, $v := .Git}}{{$k}}={{$v}};{{end}}",
    "{{range $v := .GoEnv}}{{$v}};{{end}}",
    "{{range $k, $v := .Env}}{{$k}}={{$v}};{{end}}",
    "{{$k := 1}}{{$v := 2}}{{range $k, $v = .GoEnv}}{{$k}}{{$v}} {{end}}{{$k}}{{$v}}",
    "{{$v := 2}}{{range $v = .GoEnv}}{{$v}} {{end}}{{$v}}",
    "{{range $i := 0}}{{else}}{{$i}}{{end}}",
    "{{range 5}}{{if eq . 2}}{{continue}}{{end}}{{if eq . 4}}{{break}}{{end}}{{.}}{{end}}",
    "{{range 3}}{{range 3}}{{if eq . 1}}{{break}}{{end}}{{.}}{{end}}|{{end}}",
    "{{range 3}}{{range 0}}{{else}}{{break}}{{end}}x{{end}}",
    "{{range 3}}{{range 0}}{{else}}{{continue}}{{end}}x{{end}}",
    "{{range 3}}{{else}}{{break}}{{end}}",
    "{{break}}",
    "{{continue}}",
    "{{range 1}}{{break 1}}{{end}}",
    "{{range 1}}{{print break}}{{end}}",
    "{{range 3}}{{with 1}}{{break}}{{end}}{{end}}x",
    "{{range nil}}a{{end}}",
    '{{range index .Git "None"}}a{{else}}b{{end}}',
    '{{range "abc"}}{{end}}',
    "{{range true}}{{end}}",
    "{{range 1.5}}{{end}}",
    "{{range .Git.Tag}}{{end}}",
    "{{range 3}}{{.Env.A}}{{end}}",
    "{{range 3}}{{$.Env.A}}{{end}}",
    "{{range $i, := 3}}{{end}}",
    "{{range $i, 3}}{{end}}",
    "{{$e := 3}}{{range $i, $e}}{{.}}{{end}}",
    "{{range $a, $b, $c := .Git}}{{end}}",
    "{{range 2}}{{$x := .}}{{$x}}{{end}}{{$x}}",
    "{{$x := 0}}{{range $i := 4}}{{$x = $i}}{{end}}{{$x}}",
    "{{range $i := len .Git.ShortCommit}}{{index $.Git.ShortCommit $i}} {{end}}",
    "{{range}}{{end}}",
    "{{range 1}}",
  ],
  "and, or, not": [
    '{{or (index .Env "NONE") "dev"}}',
    '{{or (index .Env "VERSION") "dev"}}',
    "{{or 0 `` false}}",
    "{{or 0 `` false 1.5 unknown}}",
    "{{and 1 `a` true}}",
    "{{and 1 0 true}}",
    "{{and 1}} {{or 0}}",
    "{{and nil 1}}",
    "{{or nil 1}}",
    "{{and false .Env.NONE}}",
    "{{or true .Env.NONE}}",
    "{{.Env.A | and 1}} {{.Env.A | and 0}} {{.Env.A | or 0}} {{.Env.A | or 1}}",
    '{{index .Git "None" | or 0}}',
    "{{not 0}} {{not 1}} {{not nil}} {{not ``}} {{not .Env}}",
    "{{not (index .Git `None`)}}",
    "{{and}}",
    "{{not 1 2}}",
  ],
  comparisons: [
    "{{eq 1 1}} {{eq 1 2}} {{eq 1 2 1}} {{eq `a` `a`}} {{eq true true}} {{eq 1.5 1.5}}",
    "{{eq 1 1.0}}",
    "{{eq 1 `1`}}",
    "{{eq 1 2 `a`}}",
    "{{eq 1 1 `a`}}",
    "{{eq true 1}}",
    "{{eq 1}}",
    "{{eq}}",
    "{{eq nil nil}} {{eq 1 nil}} {{eq nil 1}} {{eq (index .Git `None`) nil}}",
    "{{eq .Env nil}} {{eq nil .Env}}",
    "{{eq .Env .Env}}",
    "{{eq .Env 1}}",
    "{{eq .Timestamp 3}} {{eq 3 .Timestamp}} {{eq .Git.CommitTimestamp 7}} {{ne .Timestamp 4}}",
    "{{eq (index `abc` 0) 97}} {{eq 97 (index `abc` 0)}} {{lt (index `abc` 0) 98}} {{gt 98 (index `abc` 0)}}",
    "{{eq (index `abc` 0) -159}} {{lt -1 (index `abc` 0)}}",
    "{{eq .Git.TreeState `dirty`}}",
    "{{ne 1 2}} {{ne `a` `a`}}",
    "{{ne 1 `a`}}",
    "{{ne 1 2 3}}",
    "{{lt 1 2}} {{le 2 2}} {{gt 2 1}} {{ge 1 2}} {{lt `a` `b`}} {{le `b` `a`}} {{gt 1.5 0.5}} {{ge `é` `z`}}",
    "{{lt `😀` `\uffff`}}",
    "{{lt 1 1.5}}",
    "{{gt true false}}",
    "{{ge nil 1}}",
    "{{le .Env .Env}}",
    "{{lt 1 `a`}}",
    "{{1 | lt 2}} {{1 | eq 1}}",
    "{{lt .Timestamp 1e3}}",
    "{{eq -0x1e -30}}",
  ],
  "len, index, slice": [
    "{{len `abc`}} {{len `é😀`}} {{len ``}} {{len .Git}} {{len .Env}} {{len .}}",
    "{{len 3}}",
    "{{len nil}}",
    "{{len true}}",
    '{{index .Env "A"}} {{index .Env "NONE"}}. {{index .GoEnv "NONE"}}. {{index .Git "Tag"}} {{index .Git "None"}}',
    '{{index . "Env" "A"}} {{index . "Git" "Tag"}} {{index . "None"}} {{index $ "Date"}}',
    '{{index . "None" "A"}}',
    '{{index .Git "None" "A"}}',
    '{{index .Git "Tag" 0}} {{index .Env "A" 1}}',
    "{{index `abc` 0}} {{index `abc` 2}} {{index `é` 1}}",
    "{{index `abc` 3}}",
    "{{index `abc` -1}}",
    "{{index `abc` 1.0}}",
    "{{index `abc` nil}}",
    "{{index `abc` `a`}}",
    "{{index `abc`}}",
    "{{index nil}}",
    "{{index nil 1}}",
    "{{index 5 1}}",
    "{{index 5}}",
    "{{index .Env 1}}",
    "{{index .Env nil}}",
    '{{"A" | index .Env}}',
    "{{index .Env .Env.A}}",
    '{{index .Env "__proto__"}}.{{index .Git "constructor"}}.{{index . "toString"}}',
    "{{.Env.__proto__}}",
    "{{.Env.constructor}}",
    "{{.constructor}}",
    "{{index .Env (print `VERS` `ION`)}}",
    "{{$k := `Tag`}}{{index .Git $k}}",
    "{{slice .Git.FullCommit 0 7}} {{slice .Git.FullCommit 33}} {{slice .Git.Tag}} {{slice .Git.Tag 1}}",
    "{{slice `abc` 3}}. {{slice `abc` 1 1}}.",
    "{{slice `abc` 4}}",
    "{{slice `abc` 0 4}}",
    "{{slice `abc` 2 1}}",
    "{{slice `abc` -1}}",
    "{{slice `abc` 0 1 2}}",
    "{{slice `abc` 0 1 2 3}}",
    "{{slice `abc` nil}}",
    "{{slice `abc` 1.0}}",
    "{{slice nil}}",
    "{{slice 5 1}}",
    "{{slice .Env 1}}",
    "{{slice `aé` 1 3}}",
    "{{slice `abc` (len `a`)}} {{2 | slice `abc`}} {{slice `abcdefg` 'a'}}",
  ],
  "print and println": [
    '{{print 1 2 "a" "b" 3}}',
    "{{print}}.{{println}}.",
    "{{print nil}} {{print 1 nil 2}} {{print true false}} {{print 1.5 2.5}} {{print `a` 1}} {{print 1 `a`}}",
    "{{println 1 `a` `b` nil}}",
    "{{print .Git}}",
    "{{println .Git 1}}",
    "{{print (index .Git `None`)}} {{index .Git `None`}}",
    "{{print .Timestamp .Git.IsDirty}}",
    "{{print 'a' 1e6 1e-7 100000000.0 -0.0}}",
    "{{print (index `a` 0)}}",
  ],
  printf: [
    '{{printf "%s" .Env.A}} {{printf "%v %v %v %v" 1 `a` true 1.5}} {{printf "%%"}} {{printf ""}} {{printf "é"}}',
    '{{printf "%5s|%-5s|%05s|%2s" `é` `é` `é` `abc`}}',
    '{{printf "%.2s|%.0s|%5.1s|%.9s" `éab` `a` `éa` `a`}}',
    '{{printf "%d|%5d|%-5d|%05d|%+d|% d|%x|%X|%#x|%#X" 42 42 42 42 42 42 42 42 42 42}}',
    '{{printf "%d|%5d|%-5d|%05d|%+d|% d|%x|%X|%#x|%#X" -42 -42 -42 -42 -42 -42 -42 -42 -42 -42}}',
    '{{printf "%.5d|%8.5d|%-8.5d|%08.5d|%.0d|%.d|%3.0d|%+.3d" 42 42 42 42 0 0 0 7}}',
    '{{printf "%-05d|%+05d|% 05d|%#06x|%+x|%-#8x|" 42 42 42 42 42 42}}',
    '{{printf "%t|%6t|%-6t|" true false true}}',
    '{{printf "%q|%+q|%#q|%10q|%-10q|%.2q" `aé"` `aé` "a\\tb" `a` `a` `éab`}}',
    '{{printf "%q %#q %q" "a\\n\\x00\\x7f\\u200b\\U000e0001\\a\\b\\f\\r\\v\\\\" "a`b" "\\u00ad\\u3000"}}',
    '{{printf "%q %+q %#q %q %q" 97 233 97 0 0x1F600}}',
    '{{printf "%q %q %c %c %c %c|%5c|%-5c|" -1 0x110000 97 0x1F600 -1 0xD800 97 97}}',
    '{{printf "%x|%X|%#x|% x|%# x|%.2x|%10x|%-10x|%010x|%x|" `aé` `aé` `ab` `ab` `ab` `abc` `ab` `ab` `ab` ``}}',
    '{{printf "%f|%.2f|%8.3f|%-8.2f|%08.2f|%+.1f|% .1f|%.0f|%#.0f" 1.5 1.005 1.5 1.5 1.5 1.5 1.5 2.5 2.5}}',
    '{{printf "%.0f %.0f %.0f %.0f %.1f %.1f %.2f" 0.5 1.5 2.5 3.5 0.25 0.35 0.125}}',
    '{{printf "%f %f %f %.3f %f" 1e21 1e-7 -0.0 123456789.987654321 0.0}}',
    '{{printf "%e|%.2e|%12.3e|%-12.1e|%.0e|%#.0e|%e|%e|%e" 1.5 1.5 1.5 1.5 2.5 2.5 1e100 1e-100 0.0}}',
    '{{printf "%g|%.3g|%10g|%-10g|%010g|%+g|% g|%#g|%#.3g|%g|%g" 1.5 1234.5 1.5 1.5 1.5 1.5 1.5 1.5 1.5 1e6 1e21}}',
    '{{printf "%g %g %g %g %.3g %.10g %.0g %#g %#g" 100000.0 1000000.0 0.0001 0.00001 1e6 1e6 1.5 1e6 0.0}}',
    '{{printf "%v %6v|%-6v|%06v|%+v|%.3v" 1.5 1.5 1.5 1.5 1.5 3.14159}}',
    '{{printf "%v|%6v|%-6v|%06v|%+v|% v" 42 42 42 42 42 42}}',
    '{{printf "%#v %#v %#v %#v %#v" 42 `a"` true 1.5 (index `a` 0)}}',
    '{{printf "%#v %+v %v" nil nil nil}} {{printf "%5v|%-7v|" nil nil}}',
    '{{printf "%v" .Git}}|{{printf "%s" .Git}}|{{printf "%d" .Git}}|{{printf "%#v" .Git}}|{{printf "%q" .Git}}',
    '{{printf "%x" .Git}}|{{printf "%3v" .Git}}|{{printf "%t" .Git}}|{{printf "%+v" .Git}}',
    '{{printf "%s"}} {{printf "%d %s" 1}} {{printf "a" 1 `b` nil true}} {{printf "%s" 5}} {{printf "%d" `x`}}',
    '{{printf "%s %d %x %t %c %f %q" .Timestamp true false `a` 1.5 1 1.5}}',
    '{{printf "%s %d %x %t" nil nil nil nil}} {{printf "%+d %05d %-5d|" `a` `b` `c`}}',
    '{{printf "%e %g %f" 1 `a` true}} {{printf "%t" 1}} {{printf "%c" `a`}} {{printf "%#s %+s" 5 5}}',
    '{{printf "%s" (index `a` 0)}} {{printf "%d" (index `a` 0)}} {{printf "%#q %+.2f" 1.5 `a`}}',
    '{{printf "%d%%" 5}} {{printf "%5%|%-5%|"}}',
    '{{printf "%s" "\\xff" | printf "%q" | print}}',
    '{{printf "%-+5d|%+-5d|%- 5d|%00005d" 4 4 4 4}}',
    '{{printf "%1000d" 1 | len}}',
    '{{$f := "%s-%s"}}{{printf $f `a` `b`}}',
    '{{printf (print "%" "s") `a`}}',
  ],
  "real configurations": [
    "-s -w -X main.version={{.Git.Tag}} -X main.commit={{.Git.FullCommit}}",
    "-X main.version={{ .Env.VERSION }}",
    "{{ .Env.LDFLAGS }}",
    "{{.Env.LDFLAGS}}\n",
    "-X 'main.BuildDate={{.Date}}'",
    "-X github.com/a/b.gitCommit={{.Git.ShortCommit}}{{if .Git.IsDirty}}-dirty{{end}}",
    '-X main.v={{ or (index .Env "VERSION") "dev" }}',
    '-X main.v={{ if index .Env "VERSION" }}{{ .Env.VERSION }}{{ else }}{{ .Git.Tag }}{{ end }}',
    '{{ if index .Env "GIT_HASH" }}-tags={{ .Env.GIT_HASH }}{{ end }}',
    "-X main.buildTime={{.Timestamp}} -X main.treeState={{ .Git.TreeState }}",
    "-X main.date={{.Git.CommitDate}} -X main.ts={{.Git.CommitTimestamp}}",
    "-tags {{ .GoEnv.GOOS }}_{{ .GoEnv.GOARCH }}",
    '-extldflags "-static" -X main.a={{ .Env.A }}',
    "{{- range $k, $v := .GoEnv }} -X main.{{ $k }}={{ $v }}{{ end }}",
    "-X main.v={{ slice .Git.FullCommit 0 12 }}",
    '{{ with index .Env "VERSION" }}-X main.v={{ . }}{{ else }}-X main.v=none{{ end }}',
    '-X main.v={{ .Git.Tag | printf "%s+%s" .Git.ShortCommit }}',
    "{{ define `x` }}{{ end }}{{ undefined }}",
    "-X main.version={{.Version}}",
    '-X main.v={{ env "VERSION" }}',
    '-X main.v={{ .Env.VERSION | default "dev" }}',
    "-X main.v={{ .Env.VERSION | toupper }}",
    "-X main.v={{ .env.VERSION }}",
    "-X main.v={{ .Git.Branch }}{{ .Git.IsClean }}",
  ],
};

/** Refusals that Go does not have. */
const REFUSALS =
  /this writes all of|is not supported|are not supported|printf has no|too large|there is no \.|there is no variable|there is no arithmetic|not UTF-8|has a NUL|longer than/;

interface GoResult {
  readonly text: string;
  readonly failed: string;
  readonly error: string;
}

async function askText(templates: readonly string[]): Promise<readonly GoResult[]> {
  const answer = await askGo("gotemplate", { Data: data, Templates: templates });
  return listOf(answer, "Results").map((result) => {
    const fields = new Map(Object.entries(typeof result === "object" && result !== null ? result : {}));
    return {
      text: textOf(fields.get("Text")) ?? "",
      failed: String(fields.get("Failed")),
      error: String(fields.get("Error")),
    };
  });
}

/** Renders a template. Returns its text, or the error. */
function ours(text: string): string | KoError {
  try {
    return render(parseTemplate(text, { setting: "ldflags" }), data).text;
  } catch (error) {
    if (error instanceof KoError) return error;
    throw new Error(`${JSON.stringify(text)} made ko fail`, { cause: error });
  }
}

/** Compares our answer with that of Go. Returns undefined if they agree. */
function difference(text: string, go: GoResult): unknown {
  const got = ours(text);
  const shown = got instanceof KoError ? got.message : got;
  if (go.failed === "") return got === go.text ? undefined : { text, go: go.text, ours: shown };
  // Mistakes that Go finds while it renders may be found earlier, but not later.
  const isSame = got instanceof KoError && (go.failed === "execute" || got instanceof UsageError);
  return isSame ? undefined : { text, go: go.error, ours: shown };
}

const groups = Object.entries(SAME);
const answers = await askText(groups.flatMap(([, texts]) => texts));

describe("render() equals text/template", () => {
  let at = 0;
  for (const [group, texts] of groups) {
    const start = at;
    at += texts.length;
    test.skipIf(answers.length === 0)(`${group}: ${texts.length} templates`, () => {
      expect(texts.flatMap((text, i) => difference(text, answers[start + i] ?? never()) ?? [])).toEqual([]);
    });
  }

  test("in at least 400 templates", () => {
    expect(groups.flatMap(([, texts]) => texts).length).toBeGreaterThan(400);
  });

  test("in random templates", async () => {
    const count = process.env["CI"] ? 2000 : 200;
    const texts = Array.from({ length: count }, (_, seed) => generateTemplate(seed));
    const results = await askText(texts);
    const differences = results.flatMap((go, i) => {
      const text = texts[i] ?? "";
      const got = ours(text);
      if (go.failed === "" && got instanceof KoError && REFUSALS.test(got.message)) return [];
      // Go does not take a number for an index if it comes from a map of mixed types.
      if (go.error.includes("with type interface {}")) return [];
      return difference(text, go) ?? [];
    });
    expect(differences).toEqual([]);
    // The generator must not produce errors mostly.
    if (results.length > 0) expect(results.filter(({ failed }) => failed === "").length).toBeGreaterThan(count / 3);
  });
});

describe("render()", () => {
  const reads = (text: string, more: Partial<TemplateData> = {}): unknown =>
    render(parseTemplate(text, { setting: "ldflags" }), { ...data, ...more }).reads;

  test.each<[string, readonly unknown[]]>([
    ["plain", []],
    [
      "{{.Env.VERSION}} {{.Env.A}} {{.Env.VERSION}}",
      [
        ["Env.A", "x y"],
        ["Env.VERSION", "v1.2.3"],
      ],
    ],
    ['{{or (index .Env "NONE") "d"}}', [["Env.NONE", undefined]]],
    [
      '{{if index .Env "A"}}{{.Git.Tag}}{{else}}{{.Git.Branch}}{{end}}',
      [
        ["Env.A", "x y"],
        ["Git.Tag", "v1.0.0"],
      ],
    ],
    ["{{or .Git.Tag .Git.Branch}}", [["Git.Tag", "v1.0.0"]]],
    [
      "{{.Date}}{{.Timestamp}}{{.Git.IsDirty}}",
      [
        ["Date", data.Date],
        ["Git.IsDirty", true],
        ["Timestamp", 3],
      ],
    ],
    [
      "{{range .GoEnv}}{{end}}",
      [
        ["GoEnv.GOARCH", "amd64"],
        ["GoEnv.GOFLAGS", "-tags=a"],
        ["GoEnv.GOOS", "linux"],
      ],
    ],
    ["{{if .Git}}{{end}}", []],
  ])("returns the values that %j has read", (text, expected) => {
    expect(reads(text)).toEqual(expected);
  });

  test("needs only the data that the template names", () => {
    const template = parseTemplate("{{.Git.Tag}}", { setting: "ldflags" });
    expect(render(template, { Env: {}, Git: { Tag: "v2" } }).text).toBe("v2");
    expect(() => render(template, { Env: {}, Git: {} })).toThrow("the data of .Git.Tag was not supplied");
  });

  test("prints large times as int64", () => {
    const text = '{{.Timestamp}} {{printf "%d" .Git.CommitTimestamp}} {{lt .Git.CommitTimestamp 0}}';
    const more = { ...data, Timestamp: 253402300799, Git: { CommitTimestamp: -62135596800 } };
    expect(render(parseTemplate(text, { setting: "ldflags" }), more).text).toBe("253402300799 -62135596800 true");
  });

  test("lets the environment override the settings of go, and has LDFLAGS", () => {
    const text = "{{.GoEnv.GOARCH}} {{.GoEnv.GOOS}} {{len .GoEnv}}{{.Env.LDFLAGS}}";
    const more = { Env: { GOARCH: "arm", OTHER: "x" }, GoEnv: { GOARCH: "amd64", GOOS: "linux" } };
    expect(render(parseTemplate(text, { setting: "ldflags" }), more).text).toBe("arm linux 2");
  });

  test.each<[string, string, string | undefined]>([
    [
      "-X a={{ .Env.VERSON }}",
      'Cannot use ldflags: {{ .Env.VERSON }}: the environment variable "VERSON" is not set, the nearest is "VERSION"',
      'Give it a default: {{ or (index .Env "VERSON") "dev" }}',
    ],
    [
      "{{.GoEnv.GOARC}}",
      'Cannot use ldflags: {{.GoEnv.GOARC}}: .GoEnv has no "GOARC", the nearest is "GOARCH"',
      undefined,
    ],
    ["{{.Git.Tag.X}}", 'Cannot use ldflags: {{.Git.Tag.X}}: a value of type string has no field "X"', undefined],
    [
      "{{slice .Git.Tag 9}}",
      "Cannot use ldflags: {{slice .Git.Tag 9}}: position 9 is out of range, wanted at most 6",
      undefined,
    ],
    ["{{eq 1 1.5}}", "Cannot use ldflags: {{eq 1 1.5}}: values of type int and float64 cannot be compared", undefined],
    ["{{len 1 2}}", 'Cannot use ldflags: {{len 1 2}}: "len" got 2 values, wanted 1', undefined],
    ['{{"\\x00"}}', 'Cannot use ldflags: {{"\\x00"}}: the result has a NUL, which no argument can have', undefined],
    [
      "{{slice `é` 1}}",
      "Cannot use ldflags: {{slice `é` 1}}: the result is not UTF-8: it has half a character, or an escape such as \\xff",
      undefined,
    ],
    [
      "{{with or .Env .Git}}{{print .}}{{end}}",
      "Cannot use ldflags: {{print .}}: this writes all of .Env into the binary, secrets included, wanted one value",
      "Type: {{.Env.NAME}}",
    ],
    [
      "{{with or .Env .Git}}{{.}}{{end}}",
      "Cannot use ldflags: {{.}}: this writes all of .Env into the binary, secrets included, wanted one value",
      "Type: {{.Env.NAME}}",
    ],
    [
      "{{range .}}{{.}}{{end}}",
      "Cannot use ldflags: {{.}}: this writes all of .Env into the binary, secrets included, wanted one value",
      "Type: {{.Env.NAME}}",
    ],
  ])("refuses %j", (text, message, hint) => {
    const got = ours(text);
    expect(got instanceof KoError ? [got.message, got.hint, got.exitCode] : got).toEqual([message, hint, 1]);
  });

  test("shows no value in an error", () => {
    const secret = { ...data, Env: { SECRET: "hunter2", OTHER: "hunter2" } };
    for (const text of [
      "{{len .Env.SECRET | index .Env}}",
      "{{.Env.SECRET.X}}",
      "{{lt .Env.SECRET 1}}",
      "{{.Env.NONE}}",
    ]) {
      const template = parseTemplate(text, { setting: "ldflags" });
      expect(() => render(template, secret)).toThrow(KoError);
      expect(() => render(template, secret)).not.toThrow(/hunter2/);
    }
  });

  describe("ends soon", () => {
    const deep = (count: number, start: string, end: string): string => start.repeat(count) + end.repeat(count);

    test.each<[string, string, string]>([
      ["a huge range", "{{range 1000000000000000}}{{end}}", "takes more than 1000000 steps"],
      ["nested ranges", "{{range 10000}}{{range 10000}}{{end}}{{end}}", "takes more than 1000000 steps"],
      ["a long output", "{{range 1000000}}0123456789{{end}}", "longer than 131072 bytes"],
      ["a value that doubles", '{{$x := "0123456789"}}{{range 100}}{{$x = print $x $x}}{{end}}', "longer than 131072"],
      ["many wide numbers", `{{printf "${"%1000d".repeat(200)}"${" 1".repeat(200)}}}`, "longer than 131072 bytes"],
      [
        "work without output",
        `{{$x := printf "%1000d" 1}}{{range 900000}}{{if eq $x $x}}{{end}}{{end}}`,
        "1000000 steps",
      ],
      [
        "many operands",
        `{{$x := printf "%1000s" ""}}{{$x = print ${"$x ".repeat(100)}}}{{range 100}}{{$y := print ${"$x ".repeat(1000)}}}{{end}}`,
        "1000000 steps",
      ],
      [
        "many variables",
        `${"{{$x := 1}}".repeat(5000)}{{$y := 1}}{{range 900000}}{{if $.Date}}{{end}}{{end}}`,
        "1000000 steps",
      ],
      ["a width", '{{printf "%1001d" 1}}', "wanted at most 1000"],
      ["a huge width", `{{printf "%${"9".repeat(5000)}d" 1}}`, "wanted at most 1000"],
      ["deep blocks", deep(300, "{{if true}}", "{{end}}"), "nested more than 200 deep"],
      ["deep parentheses", `{{${deep(20000, "(", ")")}}}`, "nested more than 200 deep"],
      ["many else", `{{if false}}${"{{else if false}}".repeat(3000)}{{end}}`, "nested more than 200 deep"],
      ["a long text", "x".repeat(65537), "has 65537 characters, wanted at most 65536"],
      ["many blanks", `${" ".repeat(30000)}{{- 1}}{{${" ".repeat(30000)}`, "the action is not closed"],
      ["many braces", "{{".repeat(32768), "the action is not closed"],
    ])("with %s", (_name, text, message) => {
      const start = performance.now();
      const got = ours(text);
      expect(got instanceof KoError ? got.message : "no error").toContain(message);
      expect(performance.now() - start).toBeLessThan(10_000);
    });
  });

  test("allows 200 blocks, and 128 KiB", () => {
    expect(ours(`${"{{if true}}".repeat(200)}a${"{{end}}".repeat(200)}`)).toBe("a");
    const text = `{{range 1310}}${"0123456789".repeat(10)}{{end}}`;
    expect(String(ours(text)).length).toBe(131000);
  });
});

function never(): never {
  throw new Error("Go gave too few answers");
}
