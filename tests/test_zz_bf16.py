import copy, torch
from test_latent_steps import card_answer, our_answers
def test_b(qwen3, random_head, tokenizer, questions):
    m=qwen3("bfloat16"); h=random_head(); hb=copy.deepcopy(h).to(torch.bfloat16)
    n=d32=db=dB=0
    with torch.no_grad():
        for q in questions[:60]:
            e,_=card_answer(m,hb,q,tokenizer.eos_token_id,6)
            n+=1; d32+= our_answers(m,h,[q],tokenizer,6)[0]!=e; db+= our_answers(m,hb,[q],tokenizer,6)[0]!=e
        print("differ of",n,"ours with float32 head:",d32,"ours with bf16 head:",db)
