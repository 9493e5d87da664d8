/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The page's fixed parts. Style and script are named by their hashes in the Content-Security-Policy, so that nothing
 * else can be one, whatever got into the page.
 */
#include "agent/page_internal.h"

#include <openssl/evp.h>
#include <string.h>

const char page_style[] =
	":root{color-scheme:light dark;--bg:#fff;--fg:#1d2329;--dim:#5c6670;--line:#d9dee3;--card:#f6f8fa;--fill:#0b6bcb;"
	"--empty:#e1e7ed;--bad:#b3261e;--warn:#8a5a00}"
	"@media (prefers-color-scheme:dark){:root{--bg:#14181c;--fg:#e3e8ed;--dim:#98a3ad;--line:#313a42;--card:#1c2228;"
	"--fill:#4ea1f3;--empty:#2b333b;--bad:#ff8a80;--warn:#f0b95b}}"
	"*{box-sizing:border-box}"
	"body{margin:0 auto;padding:1rem;max-width:72rem;background:var(--bg);color:var(--fg);"
	"font:15px/1.45 system-ui,sans-serif;font-variant-numeric:tabular-nums}"
	"a{color:var(--fill)}h1{font-size:1.35rem;margin:0}h2{font-size:1.05rem;margin:1.8rem 0 .5rem}p{margin:.3rem 0}"
	".dim{color:var(--dim)}.bad{color:var(--bad)}.warn{color:var(--warn)}.num,.at{white-space:nowrap}"
	".name,td.msg{overflow-wrap:anywhere}"
	"article{background:var(--card);border:1px solid var(--line);border-radius:.5rem;padding:.6rem .8rem;margin:.5rem 0}"
	".head{display:flex;flex-wrap:wrap;gap:.1rem 1rem;justify-content:space-between;align-items:baseline}"
	".head .name{font-weight:600;flex:1 1 16rem}"
	"svg{display:block;width:100%;forced-color-adjust:none}.strip{height:1.1rem;margin:.4rem 0 .3rem;border-radius:.2rem}"
	".empty{fill:var(--empty)}.fill{fill:var(--fill)}"
	".spark{height:2.2rem;min-width:5rem}.spark .area{fill:var(--fill);fill-opacity:.18}"
	".spark .curve{fill:none;stroke:var(--fill);stroke-width:1.5;vector-effect:non-scaling-stroke}"
	"table{border-collapse:collapse;width:100%}th{text-align:left;font-weight:600;color:var(--dim)}"
	"th,td{padding:.35rem .8rem .35rem 0;border-bottom:1px solid var(--line);vertical-align:top}"
	"td:last-child,th:last-child{padding-right:0}th.num,td.num{text-align:right}td.chart{width:55%;vertical-align:middle}"
	"#mounts td:first-child{width:45%}"
	"@media (max-width:40rem){.log td{display:inline-block;border:0;padding:0 .5rem 0 0}.log td.msg{display:block;padding:0}"
	".log tr{display:block;padding:.4rem 0;border-bottom:1px solid var(--line)}.log thead,.wide{display:none}"
	"td.chart{width:35%}}"
	"#lost,#live{display:none}body.lost #lost{display:block}body.live #live{display:inline}body.lost main{opacity:.5}";

const char page_script[] =
	"(()=>{const go=async()=>{if(!document.hidden)try{"
	"const r=await fetch(location.href,{cache:'no-store'});if(!r.ok)throw 0;"
	"const m=new DOMParser().parseFromString(await r.text(),'text/html').querySelector('main');if(!m)throw 0;"
	"document.querySelector('main').replaceWith(m);document.body.className='live'"
	"}catch(e){document.body.className='lost'}setTimeout(go,5000)};setTimeout(go,5000)})()";

static void hash(const char *text, char out[64])
{
	unsigned char sum[EVP_MAX_MD_SIZE];
	unsigned len = 0;

	if (EVP_Digest(text, strlen(text), sum, &len, EVP_sha256(), NULL) != 1)
		len = 0; /* then nothing matches, and the page is plain */
	EVP_EncodeBlock((unsigned char *)out, sum, (int)len);
}

void page_policy(char out[PAGE_POLICY_MAX])
{
	char style[64], script[64];

	hash(page_style, style);
	hash(page_script, script);
	snprintf(out, PAGE_POLICY_MAX,
		"default-src 'none'; style-src 'sha256-%s'; script-src 'sha256-%s'; connect-src 'self'; base-uri 'none'; "
		"form-action 'none'; frame-ancestors 'none'",
		style, script);
}
